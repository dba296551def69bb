//! What a client may not ask for, and what an export may not say.

use super::*;

#[test]
fn options_are_counted_and_a_list_makes_room() {
    let (answered, end) = answer(&[], &option(99, &[]).repeat(33));
    assert!(matches!(end, End::Closes));
    assert_eq!(answered, "99 error 1\n".repeat(32) + "99 error 9\n");
    // Found by fuzzing: whatever comes before it, an abort is acknowledged.
    let sent = [option(99, &[]).repeat(32), option(NBD_OPT_ABORT, &[])].concat();
    let (answered, end) = answer(&[], &sent);
    assert!(matches!(end, End::Closes));
    assert!(answered.ends_with("2 ack\n"));
    // Two exports in the list: four more.
    let sent = [option(NBD_OPT_LIST, &[]), option(99, &[]).repeat(36)].concat();
    let (answered, end) = answer(&[], &sent);
    assert!(matches!(end, End::Closes));
    assert!(answered.ends_with(&("99 error 1\n".repeat(35) + "99 error 9\n")));

    let mut many = exports();
    many.listed = (0..9000).map(|number| number.to_string()).collect();
    let (mut handshake, _) = begin(many, Encryption::Off, FIXED);
    let sent = [option(NBD_OPT_LIST, &[]), option(99, &[]).repeat(1024)].concat();
    let (output, end) = send(&mut handshake, &sent);
    assert!(matches!(end, End::Closes));
    assert_eq!(lines(&output).matches("99 error 1\n").count(), 1023);
}

#[test]
fn long_options_end_the_session_before_their_payload() {
    for (number, len, is_long) in [
        (99, OPTION_LEN_MAX, false),
        (99, OPTION_LEN_MAX + 1, true),
        (NBD_OPT_GO, u32::MAX, true),
        (NBD_OPT_EXPORT_NAME, u32::MAX, true),
    ] {
        let (mut handshake, _) = begin(exports(), Encryption::Off, FIXED);
        let header =
            [IHAVEOPT.to_be_bytes(), (u64::from(number) << 32 | u64::from(len)).to_be_bytes()];
        let (output, end) = send(&mut handshake, &header.concat());
        assert_eq!(matches!(end, End::Closes), is_long);
        let silent = number == NBD_OPT_EXPORT_NAME || !is_long;
        let expected = if silent { String::new() } else { format!("{number} error 9\n") };
        assert_eq!(lines(&output), expected);
    }
}

#[test]
fn what_is_no_option_ends_the_session() {
    let mut wrong = option(NBD_OPT_LIST, &[]);
    wrong[0] ^= 1;
    let (lines, end) = answer(&[], &wrong);
    assert_eq!(lines, "");
    assert!(matches!(end, End::Closes));
}

#[test]
fn a_list_that_is_too_long_or_cannot_be_had_is_refused() {
    let list = |change: &dyn Fn(&mut Disks)| {
        let mut exports = exports();
        change(&mut exports);
        let (mut handshake, _) = begin(exports, Encryption::Off, FIXED);
        let (output, end) = send(&mut handshake, &option(NBD_OPT_LIST, &[]));
        assert!(matches!(end, End::Waits));
        lines(&output)
    };
    let count = |lines: String| lines.lines().filter(|line| line.contains("server")).count();
    let named = |count: usize| (0..count).map(|number| number.to_string()).collect::<Vec<_>>();
    assert_eq!(count(list(&|exports| exports.listed = named(9998))), LISTED_COUNT_MAX);
    assert_eq!(list(&|exports| exports.listed = named(9999)), "3 error 9\n");
    assert_eq!(list(&|exports| exports.listed = vec!["n".repeat(4096); 3000]), "3 error 9\n");
    assert_eq!(
        list(&|exports| exports.list_error = Some(OpenError::Refused("no".into()))),
        "3 error 2\n"
    );
    assert_eq!(
        list(&|exports| exports.list_error = Some(OpenError::Failed("no".into()))),
        "3 error 7\n"
    );
    // Names that nobody could ask for are left out.
    let odd = vec!["n".repeat(4097), "a\0b".to_owned()];
    assert_eq!(count(list(&|exports| exports.listed.clone_from(&odd))), 2);
}

#[test]
fn a_list_of_contexts_that_is_too_long_is_refused() {
    let mut exports = exports();
    let mut disk = Memory::new(vec![0; 512]);
    let name = |number| format!("x-test:{number}{}", "n".repeat(4000));
    disk.contexts = (0..3000).map(|number| (name(number), true, Vec::new())).collect();
    exports.disks[0].1 = Arc::new(disk);
    let (mut handshake, _) = begin(exports, Encryption::Off, FIXED);
    let list = option(NBD_OPT_LIST_META_CONTEXT, &queries("disk", &["x-test:"]));
    assert_eq!(lines(&send(&mut handshake, &list).0), "9 error 9\n");
}

#[test]
fn exports_of_2_to_the_63_bytes_are_not_offered() {
    for (size, expected) in [(1 << 63, "6 error 7\n"), (u64::MAX, "6 error 7\n")] {
        let mut exports = exports();
        let mut disk = Memory::new(Vec::new());
        disk.claimed_size = Some(size);
        exports.disks[0].1 = Arc::new(disk);
        let (mut handshake, _) = begin(exports, Encryption::Off, FIXED);
        let sent = option(NBD_OPT_INFO, &info("disk", &[]));
        assert_eq!(lines(&send(&mut handshake, &sent).0), expected);
    }
}

#[test]
fn block_sizes_are_announced_as_the_document_allows() {
    for ((min, preferred), expected) in [
        ((1, 4096), [1, 4096, 1 << 25]),
        ((512, 65536), [512, 65536, 1 << 25]),
        ((0, 0), [1, 512, 1 << 25]),
        ((3, 3), [4, 512, 1 << 25]),
        ((4096, 512), [4096, 4096, 1 << 25]),
        ((u32::MAX, u32::MAX), [1 << 16, 1 << 25, 1 << 25]),
    ] {
        let mut exports = exports();
        let mut disk = Memory::new(vec![0; 1 << 17]);
        disk.block_sizes = BlockSizes { min, preferred };
        exports.disks[0].1 = Arc::new(disk);
        let (mut handshake, _) = begin(exports, Encryption::Off, FIXED);
        let sent = option(NBD_OPT_INFO, &info("disk", &[]));
        let lines = lines(&send(&mut handshake, &sent).0);
        assert!(lines.contains(&format!("block size {expected:?}")), "{lines}");
    }
}

#[test]
fn information_and_transmission_are_about_the_same_opening() {
    let exports = Arc::new(exports());
    let mut handshake = Handshake::new(Arc::<Disks>::clone(&exports), Encryption::Off);
    let asked = info("disk", &[]);
    let sent = [option(NBD_OPT_INFO, &asked), option(NBD_OPT_GO, &asked)].concat();
    let (_, end) = send(&mut handshake, &[&FIXED.to_be_bytes()[..], &sent].concat());
    assert!(matches!(end, End::Transmits(_)));
    assert_eq!(*exports.opened.lock().unwrap(), ["disk"]);
}

#[test]
fn refusals_are_strings_of_the_protocol() {
    // CVE-2020-10761: a name that was repeated in the error made it too long.
    let mut output = Vec::new();
    let mut replies = OptionReplies { option: 6, output: &mut output };
    replies.refuse(&Refusal::new(NBD_REP_ERR_INVALID, "n".repeat(9999)));
    assert_eq!(output.len(), 20 + STRING_LEN_MAX);
}
