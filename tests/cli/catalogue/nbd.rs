//! N: clients of the NBD server. An error is answered, or ends one connection; other clients are served on.

use super::row::{Proof, Row, row};

pub(super) const ROWS: &[Row] = &[
    row(
        "N1",
        "a client connects and says nothing",
        "connection closed",
        "the log says why; others are served",
        Proof::Tests(&[
            "nbd-server/tests/it/limits.rs a_handshake_of_dripping_bytes_ends_at_its_deadline",
        ]),
    ),
    row(
        "N2",
        "a client sends its handshake byte by byte",
        "connection closed",
        "the deadline is for all of it",
        Proof::Tests(&[
            "nbd-server/tests/it/limits.rs a_handshake_of_dripping_bytes_ends_at_its_deadline",
        ]),
    ),
    row(
        "N3",
        "more clients than are permitted",
        "connection closed",
        "the log is not flooded",
        Proof::Tests(&[
            "nbd-server/tests/it/limits.rs too_many_connections_are_closed_at_once_and_make_no_mess",
        ]),
    ),
    row(
        "N4",
        "wrong magic numbers",
        "connection closed",
        "only this one",
        Proof::Tests(&[
            "nbd-server/tests/it/cves.rs cve_2017_7539_unexpected_bytes_end_one_connection",
            "nbd-server/tests/it/hostile.rs broken_sessions_leave_nothing_behind",
        ]),
    ),
    row(
        "N5",
        "flags of a client that nobody knows",
        "connection closed",
        "only this one",
        Proof::Tests(&["nbd-server/tests/it/hostile.rs broken_sessions_leave_nothing_behind"]),
    ),
    row(
        "N6",
        "a client of the old protocol",
        "connection closed",
        "there is no old-style handshake",
        Proof::Tests(&["nbd-server/tests/it/cves.rs cve_2017_9524_a_client_may_talk_first"]),
    ),
    row(
        "N7",
        "options without end",
        "connection closed",
        "after as many as are permitted",
        Proof::Tests(&["nbd-server/tests/it/limits.rs a_storm_of_options_ends_the_connection"]),
    ),
    row(
        "N8",
        "an option of 4 GiB",
        "connection closed",
        "nothing of it is read",
        Proof::Tests(&["nbd-server/tests/it/cves.rs cve_2017_15119_huge_options_are_not_read"]),
    ),
    row(
        "N9",
        "names of exports that are too long, no text, or paths",
        "refused, NBD_REP_ERR",
        "the connection goes on",
        Proof::Tests(&[
            "nbd-server/tests/it/cves.rs cve_2017_15118_names_of_every_length_are_understood",
            "tests/cli/nbd/names.rs names_of_nothing_several_or_nonsense_are_refused",
        ]),
    ),
    row(
        "N10",
        "lengths in a request for information that do not add up",
        "refused, NBD_REP_ERR_INVALID",
        "the connection goes on",
        Proof::Tests(&[
            "nbd-server/tests/it/cves.rs cve_2022_26495_lengths_of_names_do_not_wrap",
            "nbd-server/tests/it/cves.rs cve_2022_26496_information_requests_add_up",
        ]),
    ),
    row(
        "N11",
        "a million queries of contexts",
        "connection closed",
        "memory is bounded",
        Proof::Tests(&[
            "nbd-server/tests/it/limits.rs a_storm_of_options_ends_the_connection",
            "nbd-server/tests/it/limits.rs clients_that_hold_all_memory_make_room_for_who_waits",
        ]),
    ),
    row(
        "N12",
        "TLS twice, behind bytes that were sent before, or where there is none",
        "refused",
        "nothing from before is in force",
        Proof::Tests(&[
            "nbd-server/tests/it/tls.rs tls_is_not_begun_twice",
            "nbd-server/tests/it/tls.rs cve_2021_3716_nothing_from_before_tls_is_in_force_after_it",
        ]),
    ),
    row(
        "N13",
        "a list is asked for before TLS",
        "refused, NBD_REP_ERR_TLS_REQD",
        "no names",
        Proof::Tests(&["nbd-server/tests/it/tls.rs clients_without_tls_are_told_and_get_nothing"]),
    ),
    row(
        "N14",
        "an export that does not exist, in the old way",
        "connection closed",
        "no other answer is defined",
        Proof::Tests(&["tests/cli/nbd/names.rs names_of_nothing_several_or_nonsense_are_refused"]),
    ),
    row(
        "N15",
        "options in any order",
        "answered",
        "nothing is opened before it is asked for",
        Proof::Tests(&[
            "nbd-server/tests/it/cves.rs cve_2019_14851_options_come_in_any_order",
            "nbd-server/tests/it/cves.rs cve_2019_14850_nothing_is_opened_before_it_is_asked_for",
        ]),
    ),
    row(
        "N16",
        "a client leaves at any byte",
        "connection closed",
        "nothing is left behind",
        Proof::Tests(&[
            "nbd-server/tests/it/hostile.rs broken_sessions_leave_nothing_behind",
            "nbd-server/tests/it/cves.rs cve_2013_7441_leaving_early_ends_one_connection",
        ]),
    ),
    row(
        "N17",
        "reads of nothing, beyond the end, or of lengths that wrap",
        "NBD_EINVAL, NBD_EOVERFLOW",
        "the request; the next one works",
        Proof::Tests(&[
            "tests/cli/nbd/clients.rs requests_that_make_no_sense_are_errors_and_the_connection_goes_on",
            "nbd-server/tests/it/cves.rs cve_2005_3534_and_2011_0530_long_requests_are_refused",
        ]),
    ),
    row(
        "N18",
        "a write to what is read-only",
        "NBD_EPERM",
        "the request; its bytes are read past",
        Proof::Tests(&[
            "nbd-server/tests/it/protocol.rs requests_after_a_refused_one_are_understood",
        ]),
    ),
    row(
        "N19",
        "a write of 4 GiB",
        "connection closed",
        "nothing of it is read",
        Proof::Tests(&["nbd-server/tests/it/limits.rs a_payload_of_more_than_64_mib_is_not_read"]),
    ),
    row(
        "N20",
        "an unknown command",
        "NBD_EINVAL",
        "the request",
        Proof::Tests(&[
            "tests/cli/nbd/clients.rs requests_that_make_no_sense_are_errors_and_the_connection_goes_on",
        ]),
    ),
    row(
        "N21",
        "unknown flags of a command",
        "NBD_EINVAL",
        "the request",
        Proof::Tests(&[
            "tests/cli/nbd/clients.rs requests_that_make_no_sense_are_errors_and_the_connection_goes_on",
        ]),
    ),
    row(
        "N22",
        "cookies that are used twice",
        "answered",
        "each request has its reply",
        Proof::Tests(&["nbd-server/tests/it/protocol.rs many_requests_at_once_are_answered_each"]),
    ),
    row(
        "N23",
        "many requests, and then the client is gone",
        "connection closed",
        "replies never reach somebody else",
        Proof::Tests(&[
            "nbd-server/tests/it/cves.rs nbdkit_9d82aa4f_replies_never_reach_somebody_else",
            "nbd-server/tests/it/stress.rs clients_that_come_and_go_leave_nothing_behind",
        ]),
    ),
    row(
        "N24",
        "a client reads no replies",
        "connection closed",
        "memory is bounded, others are served",
        Proof::Tests(&[
            "nbd-server/tests/it/limits.rs a_client_that_takes_nothing_is_bounded_and_others_are_served",
            "nbd-server/tests/it/limits.rs a_client_that_does_not_take_its_replies_is_disconnected",
        ]),
    ),
    row(
        "N25",
        "a status of blocks at the end of what can be counted",
        "NBD_EINVAL",
        "the request",
        Proof::Tests(&[
            "tests/cli/nbd/clients.rs requests_that_make_no_sense_are_errors_and_the_connection_goes_on",
        ]),
    ),
    row(
        "N26",
        "flush, trim and cache of what is read-only",
        "NBD_EPERM, or nothing",
        "the request",
        Proof::Tests(&[
            "nbd-server/tests/it/protocol.rs requests_after_a_refused_one_are_understood",
        ]),
    ),
    row(
        "N27",
        "a chunk of what is served is damaged",
        "NBD_EIO",
        "that read only; the log names the chunk once",
        Proof::Tests(&[
            "tests/cli/nbd/clients.rs damage_is_an_error_of_that_read_only_and_told_once",
        ]),
    ),
    row(
        "N28",
        "the revision is purged while a client has it",
        "0",
        "nothing",
        Proof::Tests(&[
            "tests/cli/nbd/clients.rs a_client_reads_on_while_its_revision_is_forgotten_and_purged",
        ]),
    ),
    row(
        "N29",
        "SIGTERM with clients in every state",
        "0",
        "what has begun is finished",
        Proof::Tests(&[
            "nbd-server/tests/it/cves.rs cve_2024_7409_stopping_with_clients_in_every_state",
            "tests/cli/nbd/clients.rs a_request_to_stop_lets_clients_finish_and_refuses_new_ones",
        ]),
    ),
    row(
        "N30",
        "certificates that are missing, wrong or of somebody else; broken TLS",
        "connection closed",
        "the log names the reason",
        Proof::Tests(&[
            "nbd-server/tests/it/tls.rs only_clients_with_the_right_certificate_get_in",
            "nbd-server/tests/it/tls.rs garbage_and_cuts_in_tls_end_one_connection",
            "nbd-server/tests/it/tls.rs certificates_that_cannot_be_used_are_refused",
        ]),
    ),
    row(
        "N31",
        "clients that connect again and again",
        "answered",
        "descriptors and memory stay as they are",
        Proof::Tests(&[
            "nbd-server/tests/it/stress.rs clients_that_come_and_go_leave_nothing_behind",
        ]),
    ),
    row(
        "N32",
        "the address is in use, or open to everybody without TLS",
        "11, 9",
        "address, and what to do",
        Proof::Tests(&[
            "tests/cli/nbd/listening.rs tcp_listens_on_loopback_and_two_servers_do_not_share_a_port",
            "tests/cli/nbd/listening.rs addresses_that_others_reach_need_tls_or_the_word",
        ]),
    ),
];
