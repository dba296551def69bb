//! W: trees of whisper files.

use super::row::{Proof, Row, row};

pub(super) const ROWS: &[Row] = &[
    row(
        "W1",
        "a whisper file is corrupt",
        "3",
        "the file; the revision keeps what it had",
        Proof::Tests(&[
            "tests/cli/whisper/problems.rs file_that_becomes_corrupt_keeps_its_former_version",
        ]),
    ),
    row(
        "W2",
        "a whisper file stays locked",
        "3",
        "the file",
        Proof::Tests(&["tests/cli/whisper/problems.rs file_that_stays_locked_is_told"]),
    ),
    row(
        "W3",
        "files vanish while the tree is read",
        "0, 3",
        "the file",
        Proof::Tests(&[
            "tests/cli/whisper/problems.rs file_that_vanishes_keeps_its_former_version",
            "tests/cli/whisper/problems.rs file_that_is_removed_while_it_is_read_is_stored_as_it_was",
        ]),
    ),
    row(
        "W4",
        "a directory of the tree cannot be read",
        "3",
        "the directory; what was in it is kept",
        Proof::Tests(&[
            "tests/cli/whisper/problems.rs directory_that_cannot_be_read_keeps_what_was_in_it",
        ]),
    ),
    row(
        "W5",
        "the tree has become empty, or is not there",
        "9, 3",
        "the tree",
        Proof::Tests(&[
            "tests/cli/whisper/problems.rs tree_that_has_become_empty_is_refused",
            "tests/cli/whisper/problems.rs tree_that_is_not_there_is_an_error_and_begins_nothing",
        ]),
    ),
    row(
        "W6",
        "the file system of a restored tree is full, or read-only",
        "5, 7",
        "the tree; whole files only",
        Proof::Tests(&[
            "tests/it/tree_restore/faults.rs full_target_ends_the_restore_with_whole_files_only",
            "tests/it/tree_restore/faults.rs read_only_target_ends_the_restore",
        ]),
    ),
    row(
        "W7",
        "calls of a backup or restore of a tree fail",
        "by their error",
        "the path",
        Proof::Tests(&[
            "tests/cli/system/failing_calls/mod.rs whisper_backup_survives_the_failure_of_any_call",
            "tests/cli/system/failing_calls/mod.rs whisper_restore_survives_the_failure_of_any_call",
        ]),
    ),
    row(
        "W8",
        "a chunk that files need is damaged",
        "4",
        "the files; others are restored",
        Proof::Tests(&[
            "tests/cli/whisper/damage.rs restore_skips_the_damaged_metric_and_counts_it",
            "tests/cli/whisper/damage.rs verify_names_chunk_and_revision",
        ]),
    ),
    row(
        "W9",
        "another job holds the lock",
        "11",
        "the path of the lock",
        Proof::Tests(&[
            "tests/cli/whisper/jobs.rs lock_that_is_held_ends_the_command_with_its_path",
        ]),
    ),
    row(
        "W10",
        "lists of files cannot be read, so nobody knows which versions there are",
        "4",
        "the revision; nothing is thinned",
        Proof::Tests(&[
            "tests/cli/whisper/damage.rs retention_does_not_judge_what_it_cannot_read",
            "tests/it/thin/doubt.rs page_that_cannot_be_read_stops_thinning",
        ]),
    ),
];
