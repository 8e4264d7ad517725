//! The counters of the scoreboard against a recount, under random operations.

use proptest::prelude::*;

use super::*;
use crate::tcp::MILLIS;

#[derive(Clone, Debug)]
enum Op {
    Send(u32),
    Acknowledge(u64),
    Sack(u64, u64),
    Repeat,
    Probe,
    Detect,
    LoseFirst,
    LoseAll,
    Unlose,
    Recut(usize, bool),
    Wait(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (1u32..1300).prop_map(Op::Send),
        3 => (0u64..6000).prop_map(Op::Acknowledge),
        6 => (0u64..20_000, 1u64..4000).prop_map(|(l, n)| Op::Sack(l, n)),
        5 => Just(Op::Repeat),
        1 => Just(Op::Probe),
        4 => Just(Op::Detect),
        1 => Just(Op::LoseFirst),
        1 => Just(Op::LoseAll),
        1 => Just(Op::Unlose),
        1 => (50usize..1300, any::<bool>()).prop_map(|(mss, too_big)| Op::Recut(mss, too_big)),
        4 => (0u64..60).prop_map(Op::Wait),
    ]
}

fn recount(board: &Scoreboard) {
    let sum = |f: fn(&Seg) -> bool| -> u64 {
        let matching = board.segs.iter().filter(|s| f(s));
        matching.map(|s| u64::from(s.len)).sum()
    };
    assert_eq!(board.bytes, sum(|_| true));
    assert_eq!(board.sacked_bytes, sum(|s| s.is(SACKED)));
    assert_eq!(board.lost_bytes, sum(|s| s.is(LOST)));
    assert_eq!(board.repeated_bytes, sum(|s| s.is(REPEATED)));
    let sacked = board.segs.iter().filter(|s| s.is(SACKED)).count();
    assert_eq!(board.sacked_count, sacked);
    assert!(board.segs.iter().all(|s| !s.is(SACKED) || !s.is(LOST)));
    assert!(board.segs.iter().all(|s| !s.is(REPEATED) || s.is(LOST)));
    let waiting: Vec<u64> = (board.base..)
        .zip(&board.segs)
        .filter(|(_, s)| s.is(LOST) && !s.is(REPEATED))
        .map(|(number, _)| number)
        .collect();
    assert!(board.to_repeat.iter().copied().eq(waiting));
    let mut edge = board.segs.front().map_or(0, |s| s.start);
    for seg in &board.segs {
        assert_eq!(seg.start, edge, "no gaps between segments");
        assert!(seg.len > 0);
        edge = seg.end();
    }
    // Whatever is in flight is watched by time, or waits to be repeated.
    for (number, seg) in (board.base..).zip(&board.segs) {
        let watched = board
            .by_time
            .iter()
            .any(|&(n, at)| n == number && at == seg.sent_at);
        assert!(watched || seg.is(SACKED) || seg.is(LOST));
    }
    assert!(board.by_time.iter().map(|t| t.1).is_sorted());
    assert!(board.in_flight() <= 2 * board.bytes);
}

proptest! {
    #[test]
    fn counters_agree_with_a_recount(ops in prop::collection::vec(op(), 1..120)) {
        let mut board = Scoreboard::new();
        let mut rate = Rate::default();
        let (mut now, mut una, mut next) = (1000 * MILLIS, 1u64, 1u64);
        for op in ops {
            let mut acked = Acked::default();
            match op {
                Op::Send(len) => {
                    let mut seg = Seg::new(next, len, false);
                    rate.on_send(now, board.in_flight(), &mut seg);
                    next = seg.end();
                    board.push(seg);
                }
                Op::Acknowledge(bytes) => {
                    una = (una + bytes).min(next);
                    board.acknowledge(now, una, None, &mut rate, &mut acked);
                }
                Op::Sack(left, len) => {
                    let left = (una + left).min(next);
                    let right = (left + len).min(next);
                    if left < right {
                        board.sack(now, left, right, None, &mut rate, &mut acked);
                    }
                }
                Op::Repeat => {
                    if let Some((number, _)) = board.next_repeat() {
                        board.repeated(now, number, &mut rate);
                    }
                }
                Op::Probe => {
                    if let Some((number, _)) = board.last_undelivered() {
                        board.repeated(now, number, &mut rate);
                    }
                }
                Op::Detect => {
                    board.detect_losses(now, 20 * MILLIS, 20 * MILLIS, false, &mut rate);
                }
                Op::LoseFirst => {
                    board.lose_first(&mut rate);
                }
                Op::LoseAll => {
                    board.lose_all(&mut rate);
                }
                Op::Unlose => board.unlose(),
                Op::Recut(mss, too_big) => {
                    if too_big {
                        board.lose_larger(mss, &mut rate);
                    }
                    board.recut(mss);
                    assert!(board.segs.iter().all(|s| s.payload_len() <= mss));
                }
                Op::Wait(ms) => now += ms * MILLIS,
            }
            recount(&board);
        }
        let mut acked = Acked::default();
        board.acknowledge(now, next, None, &mut rate, &mut acked);
        recount(&board);
        prop_assert!(board.is_empty() && board.in_flight() == 0 && !board.has_lost());
    }
}
