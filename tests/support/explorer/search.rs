//! Which schedules are run.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use crate::explorer::footprint::Footprint;
use crate::explorer::report::{Explored, Failure, SCHEDULE_VARIABLE};
use crate::explorer::schedule::{Schedule, Step, Strategy};
use crate::explorer::{Point, Scenario};
use crate::images::Numbers;

/// The schedules that are yet to be run, and those that were.
struct Search<'a> {
    scenario: &'a Scenario,
    footprint: Footprint,
    known: BTreeSet<Schedule>,
    /// What was run, with its preemptions and its decisions: more may follow from it when more is known of what conflicts.
    ran: Vec<(Schedule, usize, Vec<Step>)>,
    points: HashSet<Arc<Point>>,
    explored: Explored,
    count_max: usize,
    numbers: Numbers,
}

impl Search<'_> {
    fn run(&mut self, strategy: Strategy, preemptions: usize) -> Result<Vec<Step>, Box<Failure>> {
        let run = self.scenario.run(strategy);
        if self.explored.counts.len() <= preemptions {
            self.explored.counts.resize(preemptions + 1, 0);
        }
        self.explored.counts[preemptions] += 1;
        self.explored.decisions = self.explored.decisions.max(run.trace.len());
        self.explored.ends = self.scenario.end_count();
        self.footprint.learn(&run.trace);
        match run.failure {
            None => Ok(run.trace),
            Some(reason) => Err(Box::new(Failure {
                schedule: run.schedule,
                reason,
                explored: self.explored.clone(),
                story: tell(self.scenario, &run.trace),
            })),
        }
    }

    /// Runs all that follows from `roots` within the bound, fewer preemptions first.
    fn run_all(&mut self, roots: Vec<Schedule>, bound: usize) -> Result<(), Box<Failure>> {
        let mut levels: Vec<Vec<Schedule>> = vec![Vec::new(); bound + 1];
        levels[0].extend(roots);
        let mut is_complete = true;
        for level in 0..=bound {
            // A part is left for the last level, whatever comes before.
            let count_max = if level < bound { self.count_max * 7 / 10 } else { self.count_max };
            is_complete &= self.run_level(level, &mut levels, count_max)?;
            if is_complete {
                self.explored.complete = Some(level);
            }
        }
        Ok(())
    }

    /// Runs the schedules with so many preemptions, until there are `count_max` with those before. Returns whether that was all.
    fn run_level(
        &mut self,
        level: usize,
        levels: &mut [Vec<Schedule>],
        count_max: usize,
    ) -> Result<bool, Box<Failure>> {
        loop {
            while let Some(schedule) = self.pick(&mut levels[level]) {
                if !self.known.insert(schedule.clone()) {
                    continue;
                }
                if count_max <= self.explored.counts.iter().sum() {
                    return Ok(false);
                }
                let trace = self.run(Strategy::Replay(schedule.clone()), level)?;
                self.expand(&schedule, &trace, level, levels);
                if level + 1 < levels.len() {
                    let trace = self.share(trace);
                    self.ran.push((schedule, level, trace));
                }
            }
            // What was learned meanwhile may make more places worth a preemption.
            for (schedule, preemptions, trace) in &self.ran {
                self.expand(schedule, trace, *preemptions, levels);
            }
            for lower in 0..level {
                let late = std::mem::take(&mut levels[lower]);
                levels[level].extend(late);
            }
            if levels[level].iter().all(|schedule| self.known.contains(schedule)) {
                return Ok(true);
            }
        }
    }

    /// Lets a trace share its points with all others: they are mostly the same.
    fn share(&mut self, mut trace: Vec<Step>) -> Vec<Step> {
        let points = &mut self.points;
        let mut shared = |point: &mut Arc<Point>| match points.get(point) {
            Some(known) => *point = Arc::clone(known),
            None => drop(points.insert(Arc::clone(point))),
        };
        for step in &mut trace {
            shared(&mut step.does);
            step.point.as_mut().map(&mut shared);
        }
        trace
    }

    /// Takes a schedule at random, so that a search that is cut short has been everywhere a little.
    fn pick(&mut self, queue: &mut Vec<Schedule>) -> Option<Schedule> {
        if queue.is_empty() {
            None
        } else {
            Some(queue.swap_remove(self.numbers.below(queue.len())))
        }
    }

    /// Puts the schedules that depart from this one at one later decision where they belong.
    fn expand(
        &self,
        schedule: &Schedule,
        trace: &[Step],
        preemptions: usize,
        levels: &mut [Vec<Schedule>],
    ) {
        let first = schedule.switches.last_key_value().map_or(0, |(last, _)| last + 1);
        for (decision, step) in trace.iter().enumerate().skip(first) {
            let (others, costs) = self.footprint.alternatives(step);
            let Some(level) = levels.get_mut(preemptions + usize::from(costs)) else { continue };
            let departures = others.into_iter().map(|other| schedule.and(decision, other));
            level.extend(departures.filter(|departure| !self.known.contains(departure)));
        }
    }
}

/// Runs all schedules with at most `bound` preemptions, but not more than `count_max` of them. With the variable
/// `BACKY_SCHEDULE` only the one that it names.
///
/// # Errors
///
/// The first schedule that fails.
///
/// # Panics
///
/// If the variable names no schedule.
pub fn explore(
    scenario: &Scenario,
    bound: usize,
    count_max: usize,
) -> Result<Explored, Box<Failure>> {
    let mut search = new_search(scenario, count_max);
    if let Ok(text) = std::env::var(SCHEDULE_VARIABLE) {
        let schedule = text.parse().expect("the variable names a schedule");
        let trace = search.run(Strategy::Replay(schedule), 0)?;
        println!("{}", tell(scenario, &trace));
        return Ok(search.explored);
    }
    let mut roots = vec![Schedule::default()];
    if let Some(mortal) = scenario.mortal {
        let trace = search.run(Strategy::Replay(Schedule::default()), 0)?;
        let points = trace.iter().filter(|step| step.chosen == mortal).count();
        roots.extend(
            (1..points)
                .map(|point| Schedule { death: Some((mortal, point)), ..Schedule::default() }),
        );
    }
    search.run_all(roots, bound)?;
    Ok(search.explored)
}

/// Runs `count` random schedules whose priorities change up to `changes` times.
///
/// # Errors
///
/// The first schedule that fails.
pub fn sample(
    scenario: &Scenario,
    seed: u64,
    count: usize,
    changes: usize,
) -> Result<Explored, Box<Failure>> {
    let mut search = new_search(scenario, usize::MAX);
    for round in 0..count as u64 {
        let operations = scenario.operations.len();
        let decisions = search.explored.decisions.max(50);
        let seed = seed.wrapping_mul(1_000_003).wrapping_add(round);
        search.run(Strategy::random(seed, operations, changes, decisions), changes)?;
    }
    Ok(search.explored)
}

/// Returns whether a random schedule, run again as it would be printed, is the same in every decision.
#[must_use]
pub fn repeats(scenario: &Scenario, seed: u64) -> bool {
    let first = scenario.run(Strategy::random(seed, scenario.operations.len(), 3, 150));
    let again = scenario.run(Strategy::Replay(first.schedule));
    first.trace == again.trace
}

fn new_search(scenario: &Scenario, count_max: usize) -> Search<'_> {
    let (footprint, known, ran) = (Footprint::default(), BTreeSet::new(), Vec::new());
    Search {
        scenario,
        footprint,
        known,
        ran,
        points: HashSet::new(),
        explored: Explored::default(),
        count_max,
        numbers: Numbers::new(1),
    }
}

/// Tells who did what; of a run of one operation the first and the last points.
fn tell(scenario: &Scenario, trace: &[Step]) -> String {
    let mut lines = Vec::new();
    for (decision, step) in trace.iter().enumerate() {
        let name = scenario.operations[step.chosen].0;
        lines.push(format!("{decision:4} {name} {}", step.does));
    }
    lines.join("\n")
}
