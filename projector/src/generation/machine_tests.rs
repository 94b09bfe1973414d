//! The machine in a small world: two generations, owners that are held by barriers, readers that must never see an older
//! state, and a driver that dies between any two steps, or repeats one.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::apply::Partition;

fn place() -> Partition {
    Partition { topic: "loan".into(), number: 0 }
}

fn at(position: i64) -> Ends {
    Ends::from([(place(), position)])
}

fn view() -> View {
    View {
        over: false,
        state: State::Converged,
        paused: None,
        failure: None,
        replayed: true,
        converged: true,
        waits: false,
        promote: true,
        barrier: None,
        compared: false,
        refusal: None,
    }
}

#[test]
fn before_the_decision_all_goes_back_and_after_it_all_goes_forward() {
    let set = |compared, refusal: Option<&str>| View {
        barrier: Some(At::Set(true)),
        compared,
        refusal: refusal.map(str::to_owned),
        ..view()
    };
    assert_eq!(next(&set(false, None)), Step::Compare);
    assert_eq!(next(&set(true, Some("too many"))), Step::GoBack);
    assert_eq!(next(&set(true, None)), Step::Advance(State::Verified));
    let verified = View { state: State::Verified, ..set(true, None) };
    assert_eq!(next(&verified), Step::Decide);
    assert_eq!(next(&View { promote: false, ..verified.clone() }), Step::GoBack);
    assert_eq!(next(&View { failure: Some("poison".into()), ..verified }), Step::GoBack);
    let decided = View { barrier: Some(At::Decided), failure: Some("poison".into()), ..view() };
    assert_eq!(next(&View { state: State::Live, paused: Some("x".into()), ..decided }), Step::MoveReaders);
}

#[test]
fn it_stops_for_people_where_only_they_can_go_on() {
    assert_eq!(next(&View { state: State::Verified, promote: false, ..view() }), Step::AskPromotion);
    for stopped in [
        View { refusal: Some("why".into()), ..view() },
        View { failure: Some("why".into()), state: State::Replaying, ..view() },
        View { paused: Some("why".into()), state: State::Retired, ..view() },
    ] {
        assert_eq!(next(&stopped), Step::Stop("why".into()), "{stopped:?}");
    }
    assert_eq!(next(&View { over: true, ..view() }), Step::Over);
    assert_eq!(next(&View { state: State::Live, ..view() }), Step::Finish);
}

#[derive(Clone, Debug)]
struct Held {
    phase: &'static str,
    ends: i64,
    said: [Option<i64>; 2],
    stands: [bool; 2],
}

/// A world in which everything happens at random times.
struct World {
    end: i64,
    /// Of the live one and of the other.
    position: [i64; 2],
    state: State,
    over: bool,
    barrier: Option<Held>,
    compared: bool,
    /// Which of the two readers look at, and the newest state that any has seen.
    readers: usize,
    seen: i64,
    random: u64,
    swaps: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            end: 40,
            position: [40, 0],
            state: State::Planned,
            over: false,
            barrier: None,
            compared: false,
            readers: 0,
            seen: 0,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            swaps: 0,
        }
    }

    fn below(&mut self, n: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % n
    }

    fn view(&self) -> View {
        let barrier = self.barrier.as_ref().map(|held| match held.phase {
            "gathering" => At::Gathering(held.said[0].zip(held.said[1]).map(|(a, b)| at(a.max(b)))),
            "set" => At::Set(held.stands == [true, true]),
            _ => At::Decided,
        });
        View {
            over: self.over,
            state: self.state,
            replayed: self.position[1] >= 40,
            converged: self.end - self.position[1] < 10,
            barrier,
            compared: self.compared,
            ..view()
        }
    }

    /// The owner of one of the two does something.
    fn owner(&mut self, which: usize) {
        let fed = which == 0 || self.state != State::Planned;
        let far = 1 + i64::try_from(self.below(7)).unwrap();
        match &mut self.barrier {
            None if fed => self.position[which] = self.end.min(self.position[which] + far),
            None => {}
            Some(held) => match held.phase {
                "gathering" => held.said[which] = Some(self.position[which]),
                _ => {
                    self.position[which] = held.ends.min(self.position[which] + far);
                    held.stands[which] = self.position[which] == held.ends;
                }
            },
        }
    }

    fn read(&mut self) {
        let found = self.position[self.readers];
        assert!(found >= self.seen, "a reader saw {found} after {}", self.seen);
        self.seen = found;
    }

    /// Does a step as the control store would: what doesn't fit any more changes nothing.
    fn step(&mut self, step: &Step) {
        match (step, &mut self.barrier) {
            (Step::Begin, _) if self.state == State::Planned => self.state = State::Replaying,
            (Step::Advance(state), _) if self.state < *state => self.state = *state,
            (Step::Open, None) => {
                self.barrier = Some(Held { phase: "gathering", ends: 0, said: [None; 2], stands: [false; 2] });
                self.compared = false;
            }
            (Step::Set(ends), Some(held)) if held.phase == "gathering" => {
                (held.phase, held.ends) = ("set", ends[&place()]);
            }
            (Step::Compare, Some(held)) if held.phase == "set" => self.compared = true,
            (Step::GoBack, Some(held)) if held.phase != "decided" => self.barrier = None,
            (Step::Decide, Some(held)) if held.phase == "set" && held.stands == [true, true] => {
                held.phase = "decided";
                self.state = State::Live;
            }
            (Step::MoveReaders, Some(held)) if held.phase == "decided" => {
                self.readers = 1;
                // The driver may die here: the barrier holds until another one has moved them.
                if self.below(3) > 0 {
                    self.barrier = None;
                    self.swaps += 1;
                }
            }
            (Step::Finish, None) => self.over = true,
            _ => {}
        }
    }

    fn run(&mut self, next: impl Fn(&View) -> Step) {
        // What a driver saw, who may do it much later, or never.
        let mut driver = self.view();
        for _ in 0..4_000 {
            match self.below(10) {
                0 | 1 => self.end += 1,
                2 | 3 => self.owner(0),
                4 | 5 => self.owner(1),
                6 => self.read(),
                7 => driver = self.view(),
                8 => {
                    let step = next(&driver);
                    self.step(&step);
                    driver = self.view();
                }
                _ => {
                    let rare = self.below(4) == 0;
                    if rare && self.barrier.as_ref().is_some_and(|held| held.phase != "decided") {
                        self.barrier = None;
                    }
                }
            }
            if self.over && self.end > 4_000 {
                break;
            }
        }
    }
}

#[test]
fn readers_never_see_an_older_state_and_it_always_ends() {
    for seed in 1..=300 {
        let mut world = World::new(seed);
        world.run(next);
        assert!(
            world.over && world.readers == 1 && world.swaps == 1,
            "seed {seed}: {:?} {:?}",
            world.state,
            world.barrier
        );
    }
}

#[test]
fn a_swap_without_a_barrier_is_noticed() {
    // Planted: as soon as the other one is near, readers are moved.
    let naive = |view: &View| match next(view) {
        Step::Open => Step::Finish,
        step => step,
    };
    let noticed = (1..=300).any(|seed| {
        let mut world = World::new(seed);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            world.run(|view| {
                let step = naive(view);
                if step == Step::Finish { Step::Over } else { step }
            });
            world.readers = 1;
            world.run(naive);
        }))
        .is_err()
    });
    assert!(noticed);
}
