//! Corner cases of the RFCs as scripts; the language is explained in
//! `support/lines.rs`. The other tests of this directory hold those that need
//! more than lines.
#![allow(clippy::unwrap_used)]

mod support;

use support::lines::{Lines, run};

/// An open connection with an RTT of 50 ms that has sent one byte.
fn open() -> Lines {
    run("
        < S 0 mss 1220 ws 0 sackok win 60000
        accept
        > S. 0 ack 1
        +50 < . 1 ack 1 win 60000
        write 1
        > . 1:2 ack 1
        +50 < . 1 ack 2 win 60000
    ")
}

fn on_open(text: &str) {
    open().go_on(text);
}

// Opening -------------------------------------------------------------------

#[test]
fn data_on_a_syn_is_left_to_be_repeated() {
    run("
        < S 0:100 mss 1220 ws 0 sackok
        accept
        > S. 0 ack 1
        +50 < . 1 ack 1
        nothing
        < P. 1:101 ack 1
        > . 1 ack 101
        read 100
    ");
}

#[test]
fn data_on_the_answer_to_a_syn_is_left_to_be_repeated() {
    run("
        connect
        > S 0
        +50 < S. 0:10 ack 1 mss 1220 ws 0 sackok
        state Established
        > . 1 ack 1
        < P. 1:11 ack 1
        > . 1 ack 11
        read 10
    ");
}

#[test]
fn a_syn_with_a_fin_opens_nothing() {
    run("
        < SF 0 mss 1220
        > R. 0 ack 2
    ");
}

#[test]
fn an_offer_of_congestion_notification_is_declined() {
    run("
        < SEW 0 mss 1220 ws 0 sackok
        accept
        > S. 0 ack 1
    ");
}

#[test]
fn a_repeated_syn_is_answered_again() {
    run("
        < S 0 mss 1220 ws 0 sackok
        accept
        > S. 0 ack 1
        +300 < S 0 mss 1220 ws 0 sackok
        > S. 0 ack 1
        +50 < . 1 ack 1
        state Established
    ");
}

#[test]
fn an_answer_with_another_number_does_not_open() {
    run("
        < S 0 mss 1220 ws 0 sackok
        accept
        > S. 0 ack 1
        < . 1 ack 2
        state SynReceived
        < . 1 ack 0
        state SynReceived
        +50 < . 1 ack 1
        state Established
    ");
}

#[test]
fn windows_of_syns_are_never_scaled() {
    run("
        < S 0 mss 1220 ws 14 sackok win 2
        accept
        > S. 0 ack 1 ws 9 win 65535
        +50 < . 1 ack 1 win 1     # 16 KiB
        write 20000
        > . 1:1209
        > . 1209:2417
        > . 2417:3625
        > . 3625:4833
        > . 4833:6041
        > . 6041:7249
        > . 7249:8457
        > . 8457:9665
        > . 9665:10873
        > . 10873:12081
        quiet 10
    ");
}

#[test]
fn without_the_peers_scale_there_is_none() {
    run("
        < S 0 mss 1220 sackok win 60000
        accept
        > S. 0 ack 1 ws none win 65535
        +50 < P. 1:1001 ack 1
        > . 1 ack 1001 win 64536
        +50 < P. 1001:2001 ack 1
        > . 1 ack 2001 win 63536
    ");
}

// Receiving -----------------------------------------------------------------

#[test]
fn urgent_data_is_data() {
    on_open(
        "
        < UP. 1:11 ack 2
        > . 2 ack 11
        read 10
    ",
    );
}

#[test]
fn sequence_numbers_wrap() {
    let mut lines = run("");
    lines.script.irs = u32::MAX - 1000;
    lines.go_on(
        "
        < S 0 mss 1220 ws 0 sackok
        accept
        > S. 0 ack 1
        +50 < . 1 ack 1
        < P. 1:901 ack 1
        > . 1 ack 901
        < P. 1901:2101 ack 1
        > . 1 ack 901 sack 1901-2101
        < P. 901:1901 ack 1
        > . 1 ack 2101
        read 2100
    ",
    );
}

#[test]
fn timestamps_wrap() {
    run("
        < S 0 mss 1220 ws 0 sackok ts -5,0
        accept
        > S. 0 ack 1 echo -5
        +50 < . 1 ack 1 ts -1,0
        < P. 1:101 ack 1 ts 2,0
        > . 1 ack 101 echo 2
        < P. 101:201 ack 1 ts -3,0     # older than the last
        > . 1 ack 101 echo 2
        < P. 101:201 ack 1 ts 3,0
        > . 1 ack 201 echo 3
    ");
}

#[test]
fn the_echo_is_of_the_segment_that_fills_the_gap() {
    // RFC 7323 §4.3
    run("
        < S 0 mss 1220 ws 0 sackok ts 10,0
        accept
        > S. 0 ack 1 echo 10
        +50 < . 1 ack 1 ts 20,0
        < P. 1:101 ack 1 ts 30,0
        > . 1 ack 101 echo 30
        < P. 201:301 ack 1 ts 50,0
        > . 1 ack 101 echo 30 sack 201-301
        < P. 101:201 ack 1 ts 40,0
        > . 1 ack 301 echo 40
    ");
}

#[test]
fn what_arrives_twice_is_reported_first() {
    // RFC 2883 §4
    on_open(
        "
        < P. 1001:2001 ack 2
        > . 2 ack 1 sack 1001-2001
        < P. 1001:2001 ack 2
        > . 2 ack 1 sack 1001-2001,1001-2001
        < P. 1:1001 ack 2
        > . 2 ack 2001
        < P. 1:1001 ack 2
        > . 2 ack 2001 sack 1-1001
    ",
    );
}

#[test]
fn data_beyond_the_window_is_cut_off() {
    run("
        < S 0 mss 1220 sackok win 60000
        accept
        > S. 0 ack 1 win 65535
        +50 < . 1 ack 1
        < P. 65001:66001 ack 1
        > . 1 ack 1 sack 65001-65536
        < P. 66001:67001 ack 1     # entirely beyond
        > . 1 ack 1
    ");
}

// Closing -------------------------------------------------------------------

#[test]
fn a_repeated_fin_is_acknowledged_again() {
    on_open(
        "
        < F. 1 ack 2
        > . 2 ack 2
        eof
        state CloseWait
        +300 < F. 1 ack 2
        > . 2 ack 2
        state CloseWait
        shutdown
        > F. 2 ack 2
        state LastAck
        +50 < . 2 ack 3
        closed Finished
    ",
    );
}

#[test]
fn a_fin_before_a_gap_waits_for_it() {
    on_open(
        "
        < F. 101:201 ack 2
        > . 2 ack 1 sack 101-201
        state Established
        < P. 1:101 ack 2
        > . 2 ack 201
        read 200
        < F. 101:201 ack 2
        > . 2 ack 202
        eof
        state CloseWait
    ",
    );
}

#[test]
fn data_and_fin_of_both_sides_cross() {
    on_open(
        "
        write 100
        shutdown
        > F. 2:102 ack 1
        state FinWait1
        < FP. 1:51 ack 2
        > . 103 ack 52
        state Closing
        read 50
        eof
        +50 < . 52 ack 103
        state TimeWait
        closed Finished
    ",
    );
}

#[test]
fn a_closed_window_holds_the_fin_back() {
    on_open(
        "
        write 100
        > . 2:102 ack 1
        +50 < . 1 ack 102 win 0
        write 10
        shutdown
        +200 > . 101 ack 1     # is it still closed?
        < . 1 ack 102 win 0
        +400 > . 101 ack 1
        < . 1 ack 102 win 1000
        > F. 102:112 ack 1
    ",
    );
}

#[test]
fn a_reset_during_the_close_ends_it() {
    on_open(
        "
        shutdown
        > F. 2 ack 1
        < R 1
        closed Reset
    ",
    );
}

// Loss ----------------------------------------------------------------------

/// Ten segments in flight from offset 2; of the third on all are reported.
const GAP: &str = "
    write 12080
    > . 2:1210
    > . 1210:2418
    > . 2418:3626
    > . 3626:4834
    > . 4834:6042
    > . 6042:7250
    > . 7250:8458
    > . 8458:9666
    > . 9666:10874
    > . 10874:12082
    stamp
    +50 < . 1 ack 1210
    < . 1 ack 1210 sack 2418-3626
    < . 1 ack 1210 sack 2418-4834
    < . 1 ack 1210 sack 2418-6042
    > . 1210:2418
";

#[test]
fn a_repeat_that_was_needed_is_not_regretted() {
    let mut lines = open();
    lines.go_on(GAP);
    lines.go_on(
        "
        +50 < . 1 ack 12082     # echoes the repeat
        cwnd 7
        spurious 0
    ",
    );
}

#[test]
fn a_segment_that_was_only_late_takes_the_reduction_back() {
    // RFC 3522: the acknowledgement echoes the first transmission.
    let mut lines = open();
    lines.go_on(GAP);
    lines.go_on(
        "
        +2 < . 1 ack 6042 echo
        cwnd 10
        spurious 1
    ",
    );
}

#[test]
fn repeats_that_arrive_twice_take_the_reduction_back() {
    // RFC 3708, where timestamps tell nothing.
    let mut lines = run("
        < S 0 mss 1220 ws 0 sackok win 60000 nots
        accept
        > S. 0 ack 1
        +50 < . 1 ack 1 win 60000 nots
        write 12200
        > . 1:1221
        > . 1221:2441
        > . 2441:3661
        > . 3661:4881
        > . 4881:6101
        > . 6101:7321
        > . 7321:8541
        > . 8541:9761
        > . 9761:10981
        > . 10981:12201
        +50 < . 1 ack 1221 nots
        < . 1 ack 1221 sack 2441-3661 nots
        < . 1 ack 1221 sack 2441-4881 nots
        < . 1 ack 1221 sack 2441-6101 nots
        > . 1221:2441
        +2 < . 1 ack 12201 nots     # too soon for the repeat
        cwnd 7
    ");
    lines.go_on(
        "
        +48 < . 1 ack 12201 sack 1221-2441 nots
        cwnd 10
    ",
    );
}

#[test]
fn a_duplicate_of_something_else_proves_nothing() {
    let mut lines = open();
    lines.go_on(GAP);
    lines.go_on(
        "
        < . 1 ack 1210 sack 2-1210,2418-6042
        +50 < . 1 ack 12082
        cwnd 7
    ",
    );
}

#[test]
fn the_rate_falls_in_proportion() {
    // RFC 9937: thirteen are in flight when the loss is seen, and nine fit the
    // new window: three leave while six arrive, and no pause is made.
    on_open(
        "
        write 60000
        > . 2:1210
        > . 1210:2418
        > . 2418:3626
        > . 3626:4834
        > . 4834:6042
        > . 6042:7250
        > . 7250:8458
        > . 8458:9666
        > . 9666:10874
        > . 10874:12082
        quiet 0
        +50 < . 1 ack 1210
        > . 12082:13290
        > . 13290:14498
        quiet 0
        < . 1 ack 1210 sack 2418-3626
        > . 14498:15706
        > . 15706:16914
        quiet 0
        < . 1 ack 1210 sack 2418-4834
        > . 16914:18122
        > . 18122:19330
        quiet 0
        < . 1 ack 1210 sack 2418-6042
        > . 1210:2418
        quiet 0
        < . 1 ack 1210 sack 2418-7250
        quiet 0
        < . 1 ack 1210 sack 2418-8458
        > . 19330:20538
        quiet 0
        < . 1 ack 1210 sack 2418-9666
        quiet 0
        < . 1 ack 1210 sack 2418-10874
        quiet 0
        < . 1 ack 1210 sack 2418-12082
        > . 20538:21746
        quiet 0
        +50 < . 1 ack 21746
        cwnd 9
    ",
    );
}

#[test]
fn after_a_timeout_the_window_opens_again_from_two_segments() {
    on_open(
        "
        write 4832
        > . 2:1210
        > . 1210:2418
        > . 2418:3626
        > . 3626:4834
        +101 > . 3626:4834     # probe of the tail
        +200 > . 2:1210
        > . 1210:2418
        quiet 0
        +50 < . 1 ack 1210
        > . 2418:3626
        > . 3626:4834
        +50 < . 1 ack 4834
        quiet 100
    ",
    );
}

#[test]
fn a_window_that_shrinks_holds_back_what_is_new() {
    on_open(
        "
        write 2416
        > . 2:1210
        > . 1210:2418
        +50 < . 1 ack 1210 win 500
        write 1208
        quiet 20
        +20 < . 1 ack 2418 win 60000
        > . 2418:3626
    ",
    );
}

// Reordering ----------------------------------------------------------------

/// Two segments, the second of which is reported first; `wait` ms later the
/// first is taken for lost.
fn overtaken(lines: &mut Lines, from: u32, wait: u32) {
    let (middle, to) = (from + 1208, from + 2416);
    lines.go_on(&format!(
        "
        write 2416
        > . {from}:{middle}
        > . {middle}:{to}
        +50 < . 1 ack {from} sack {middle}-{to}
        +{wait} > . {from}:{middle}
    "
    ));
}

#[test]
fn needless_repeats_widen_the_reordering_window_for_16_recoveries() {
    // RFC 8985 §6.2: a quarter of the least RTT, once more for each round with
    // a DSACK.
    let mut lines = open();
    overtaken(&mut lines, 2, 12);
    lines.go_on("+50 < . 1 ack 2418 sack 2-1210");
    let mut from = 2418;
    for _ in 0..16 {
        overtaken(&mut lines, from, 25);
        from += 2416;
        lines.go_on(&format!("+50 < . 1 ack {from}"));
    }
    overtaken(&mut lines, from, 12);
}

// Attacks -------------------------------------------------------------------

#[test]
fn challenges_are_rationed() {
    // RFC 5961 §7: whoever guesses numbers gets no stream of answers, and
    // what waits behind the limit is not made up for.
    on_open(
        "
        +60 < R 5
        > . 2 ack 1
        < R 6
        < S 7
        < . 1 ack 900000
        quiet 49
        +2 < R 8
        > . 2 ack 1
        state Established
    ",
    );
}

// Closed windows ------------------------------------------------------------

/// A connection to whose peer ten bytes wait before a closed window.
fn held_up() -> Lines {
    let mut lines = open();
    lines.go_on(
        "
        write 100
        > . 2:102 ack 1
        +50 < . 1 ack 102 win 0
        write 10
    ",
    );
    lines
}

#[test]
fn a_lost_opening_of_the_window_is_found_out() {
    held_up().go_on(
        "
        +200 > . 101 ack 1      # lost
        +400 > . 101 ack 1      # its answer is lost
        +800 > . 101 ack 1
        +50 < . 1 ack 102 win 1000
        > . 102:112 ack 1
        +50 < . 1 ack 112 win 1000
        quiet 9000
    ",
    );
}

#[test]
fn an_older_segment_does_not_open_the_window() {
    held_up().go_on(
        "
        < . 1 ack 2 win 60000
        quiet 190
        +10 > . 101 ack 1
    ",
    );
}
