//! K, C, T: commands that are killed, commands beside each other, and clocks that are wrong.

use super::row::{Fault, Proof, Row, hinted, row, whole};

pub(super) const ROWS: &[Row] = &[
    row(
        "K1",
        "power is lost at any call",
        "0 for the next command",
        "nothing: acknowledged revisions are there",
        Proof::Tests(&[
            "tests/reliability/crash.rs acknowledged_revisions_survive_a_stop_at_any_call_first_quarter",
            "tests/reliability/syncs.rs loss_of_each_sync_that_matters_is_noticed",
        ]),
    ),
    row(
        "K2",
        "a rebuild of the index is killed",
        "0 for the next command",
        "nothing",
        Proof::Tests(&["tests/cli/system/kill.rs killed_index_rebuilds_leave_an_index"]),
    ),
    row(
        "K3",
        "a purge is killed",
        "0 for the next command",
        "nothing",
        Proof::Tests(&[
            "tests/cli/system/kill.rs killed_purges_lose_nothing",
            "tests/reliability/crash/repack.rs purge_that_repacks_survives_a_stop_at_any_call",
        ]),
    ),
    row(
        "K4",
        "a repair is killed",
        "0 for the next command",
        "nothing",
        Proof::Tests(&["tests/it/repair.rs repair_survives_a_stop_and_a_failure_at_any_call"]),
    ),
    row("K5", "a change of keys is killed", "-", "-", Proof::None("there are no keys yet")),
    row(
        "K6",
        "a migration of the format is killed",
        "-",
        "-",
        Proof::None("there is one format, so nothing to migrate"),
    ),
    row(
        "K7",
        "power is lost again while the first loss is recovered from",
        "0 for the next command",
        "nothing",
        Proof::Tests(&[
            "tests/reliability/crash.rs acknowledged_revisions_survive_a_stop_at_any_call_second_quarter",
        ]),
    ),
    row(
        "K8",
        "a command is killed while it holds locks",
        "0 for the next command",
        "nothing: a lock ends with its process",
        Proof::Tests(&["tests/cli/system/kill.rs killed_backups_lose_nothing_and_need_no_care"]),
    ),
    row(
        "K9",
        "SIGINT or SIGTERM",
        "130, 143",
        "that it was interrupted; there is no revision",
        Proof::Tests(&[
            "tests/cli/locks_and_signals.rs interrupt_ends_a_backup_without_a_revision",
            "tests/cli/locks_and_signals.rs termination_ends_a_backup_without_a_revision",
        ]),
    ),
    row(
        "K10",
        "a second signal comes before the first one had its effect",
        "130, 143",
        "nothing: the process ends at once",
        Proof::Scene(super::moments::second_interrupt_ends_the_process_at_once),
    ),
    row(
        "K11",
        "a scheduler with workers gets SIGTERM",
        "-",
        "-",
        Proof::None("there is no scheduler yet"),
    ),
    row(
        "K12",
        "a worker of a scheduler is killed",
        "-",
        "-",
        Proof::None("there is no scheduler yet"),
    ),
    row(
        "K13",
        "the kernel kills a command for want of memory",
        "0 for the next command",
        "nothing: to the store it is any other kill",
        Proof::Tests(&[
            "tests/cli/system/kill.rs killed_first_backup_goes_on_where_it_was",
            "tests/cli/system/turmoil.rs nothing_is_lost_in_a_turmoil_of_processes_that_are_killed",
        ]),
    ),
    row(
        "K14",
        "a backup sleeps for long, and wakes up",
        "11 for others meanwhile, then 0",
        "who holds the lock: locks do not run out",
        Proof::Scene(super::moments::backup_that_slept_long_still_holds_its_locks),
    ),
    row(
        "C1",
        "two backups of one source",
        "11",
        "process and host of the first",
        Proof::Tests(&["tests/cli/system/processes.rs second_backup_of_a_source_names_the_first"]),
    ),
    row(
        "C2",
        "two backups of the same bytes",
        "0",
        "nothing: chunks are there once or twice, never missing",
        Proof::Tests(&[
            "tests/it/schedules.rs two_backups_of_the_same_bytes_keep_them",
            "tests/cli/system/processes.rs backups_of_two_sources_restores_and_verifications_run_at_once",
        ]),
    ),
    row(
        "C3",
        "a purge beside a backup",
        "0",
        "nothing",
        Proof::Tests(&[
            "tests/cli/system/processes.rs purges_beside_backups_and_restores_lose_nothing",
            "tests/it/schedules.rs two_purges_beside_a_backup_lose_nothing",
        ]),
    ),
    row(
        "C4",
        "an expiry beside a backup",
        "0",
        "nothing",
        Proof::Tests(&[
            "tests/it/schedules.rs expiry_of_a_source_that_is_backed_up_keeps_the_rest",
        ]),
    ),
    row(
        "C5",
        "a purge beside a server of the revision",
        "0",
        "nothing: what is served is pinned",
        Proof::Tests(&[
            "tests/cli/nbd/clients.rs a_client_reads_on_while_its_revision_is_forgotten_and_purged",
        ]),
    ),
    row(
        "C6",
        "a purge beside a verification",
        "0",
        "nothing",
        Proof::Tests(&[
            "tests/it/repack.rs verification_keeps_the_packs_that_it_reads_until_it_ends",
        ]),
    ),
    row(
        "C7",
        "a rebuild of the index beside backups",
        "0",
        "nothing: neither waits for the other",
        Proof::Tests(&[
            "tests/it/concurrency.rs nothing_is_lost_while_the_index_is_rebuilt_again_and_again",
        ]),
    ),
    row(
        "C8",
        "two purges",
        "11",
        "who purges",
        whole(
            |stage| {
                let path = stage.scene.backup_path("locks/purge");
                let file = std::fs::File::options().create(true).append(true).open(path).unwrap();
                file.lock().unwrap();
                Ok(Fault { guard: Some(Box::new(file)), ..Fault::default() })
            },
            &[hinted("purge", 11, &["purge", "locked by"])],
        ),
    ),
    row(
        "C9",
        "two machines on one network file system",
        "-",
        "-",
        Proof::None("not possible here: it needs a file server; locks are the file system's"),
    ),
    row(
        "C10",
        "a purge marks while revisions are forgotten and made",
        "0",
        "nothing: what is needed again is reprieved",
        Proof::Tests(&[
            "tests/it/schedules.rs backup_keeps_what_it_takes_over_from_a_forgotten_parent",
            "tests/it/concurrency.rs purge_finds_what_was_committed_between_plan_and_execution_although_the_index_is_rebuilt",
        ]),
    ),
    row(
        "C11",
        "revisions are listed while one is made",
        "0",
        "nothing: it is there completely or not at all",
        Proof::Tests(&["tests/it/concurrency.rs reader_gets_all_of_a_revision_or_none"]),
    ),
    row(
        "C12",
        "a restore while its revision is forgotten and purged",
        "0",
        "nothing",
        Proof::Tests(&[
            "tests/cli/system/processes.rs restore_of_a_forgotten_revision_outlives_a_purge_that_moves_what_it_reads",
        ]),
    ),
    row(
        "T1",
        "the newest revision is of the future",
        "9",
        "the revision, and what to do",
        Proof::Tests(&["tests/cli/expire.rs clock_that_is_behind_is_refused"]),
    ),
    row(
        "T2",
        "the clock jumped ahead, or begins at 1970",
        "9",
        "that the clock may be wrong",
        Proof::Tests(&[
            "tests/cli/expire.rs clock_that_is_ahead_is_refused",
            "tests/it/retention.rs clock_that_jumps_expires_nothing_unless_forced",
        ]),
    ),
    row(
        "T3",
        "the schedule keeps no good revision",
        "9",
        "the last good one",
        Proof::Tests(&["tests/cli/expire.rs last_good_revision_is_not_removed_without_force"]),
    ),
    row(
        "T4",
        "an expiry would remove more than half",
        "9",
        "how many of how many",
        Proof::Tests(&["tests/cli/expire.rs removing_more_than_half_is_refused"]),
    ),
    row(
        "T5",
        "hours that daylight saving time leaves out, or has twice",
        "0",
        "nothing",
        Proof::Tests(&["tests/cli/revisions.rs times_and_dates_are_local"]),
    ),
    row(
        "T6",
        "the clock jumps while packs wait to be purged",
        "0",
        "nothing: nothing is lost, and nothing waits for ever",
        Proof::Tests(&[
            "tests/it/clock_jumps.rs condemned_packs_go_after_every_jump_of_the_clock_and_not_before_the_grace",
            "tests/it/clock_jumps.rs repacking_and_sweeping_lose_nothing_whatever_the_clock_says",
        ]),
    ),
    row(
        "T7",
        "somebody made revisions with dates that push the good ones out",
        "9",
        "the revision of the future",
        Proof::Tests(&[
            "tests/cli/expire.rs clock_that_is_behind_is_refused",
            "tests/cli/expire.rs protected_revisions_stay",
        ]),
    ),
    row(
        "T8",
        "there is no schedule",
        "2",
        "that nothing expires without one",
        Proof::Tests(&["tests/cli/expire.rs without_a_schedule_nothing_expires"]),
    ),
];
