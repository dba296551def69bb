//! The series of a host: which metrics it has, and what their values look like.

use crate::DAY;

/// One file of a host.
#[derive(Debug)]
pub(crate) struct Metric {
    /// Path below the host's directory, without the extension.
    pub path: &'static str,
    pub kind: Kind,
}

/// How the values of a series behave.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// Never changes, and is the same on all hosts, as a limit or a number of processors.
    Constant,
    /// Keeps a whole value for about a day, as the size of a file system.
    Steps,
    /// A whole number that only grows.
    Counter,
    /// A small whole number, as a count of processes.
    Count,
    /// Wanders, with two decimals.
    Gauge,
    /// A double with all its digits.
    Noise,
    /// A whole number, in 30 % of the slots.
    Sparse,
    /// A gauge, in 2 % of the slots.
    Rare,
}

const fn metric(path: &'static str, kind: Kind) -> Metric {
    Metric { path, kind }
}

/// The files of one host.
pub(crate) const METRICS: [Metric; 44] = [
    metric("cpu/total/user", Kind::Gauge),
    metric("cpu/total/system", Kind::Gauge),
    metric("cpu/total/idle", Kind::Noise),
    metric("cpu/total/guest", Kind::Constant),
    metric("cpu/total/steal", Kind::Constant),
    metric("cpu/total/nice", Kind::Constant),
    metric("cpu/count", Kind::Constant),
    metric("cpu/context_switches", Kind::Counter),
    metric("cpu/interrupts", Kind::Counter),
    metric("loadavg/01", Kind::Gauge),
    metric("loadavg/05", Kind::Noise),
    metric("loadavg/limit", Kind::Constant),
    metric("loadavg/processes_blocked", Kind::Constant),
    metric("loadavg/processes_total", Kind::Count),
    metric("memory/total", Kind::Constant),
    metric("memory/free", Kind::Noise),
    metric("memory/hardware_corrupted", Kind::Constant),
    metric("memory/swap_total", Kind::Constant),
    metric("memory/swap_free", Kind::Constant),
    metric("disk/sda/reads", Kind::Counter),
    metric("disk/sda/discards", Kind::Constant),
    metric("disk/sda/await", Kind::Noise),
    metric("disk/sda/utilisation", Kind::Noise),
    metric("filesystem/root/size", Kind::Constant),
    metric("filesystem/root/used", Kind::Steps),
    metric("filesystem/root/inodes_used", Kind::Steps),
    metric("filesystem/data/size", Kind::Constant),
    metric("filesystem/data/used", Kind::Steps),
    metric("network/eth0/rx_byte", Kind::Noise),
    metric("network/eth0/tx_byte", Kind::Noise),
    metric("network/eth0/rx_packets", Kind::Counter),
    metric("network/eth0/tx_packets", Kind::Counter),
    metric("network/eth0/rx_errors", Kind::Constant),
    metric("network/eth0/tx_errors", Kind::Constant),
    metric("sockets/tcp/established", Kind::Count),
    metric("sockets/tcp/orphaned", Kind::Constant),
    metric("sockets/udp/errors", Kind::Constant),
    metric("ntp/offset", Kind::Noise),
    metric("app/requests", Kind::Sparse),
    metric("app/errors", Kind::Constant),
    metric("app/latency/upper_90", Kind::Sparse),
    metric("app/logins", Kind::Sparse),
    metric("app/up", Kind::Constant),
    metric("app/deploy_seconds", Kind::Rare),
];

impl Kind {
    /// Returns how many points of a finer archive a coarser one needs.
    pub(crate) const fn files_factor(self) -> f32 {
        match self {
            Self::Sparse | Self::Rare => 0.0,
            _ => 0.5,
        }
    }

    /// Returns the share of slots that have a point.
    const fn density(self) -> f64 {
        match self {
            Self::Sparse => 0.3,
            Self::Rare => 0.02,
            _ => 1.0,
        }
    }

    /// Returns the values from `start` to before `end`, every `step` seconds. Those that are missing are not numbers;
    /// the first of a day is never missing.
    pub(crate) fn values(self, random: &mut Random, start: u32, end: u32, step: u32) -> Vec<f64> {
        let scale = f64::from(1 + random.below(2000));
        let whole = f64::from(random.below(5)) * f64::from(1 << random.below(24));
        let mut level = whole + f64::from(random.below(100));
        let mut values = Vec::new();
        for time in (start..end).step_by(usize::try_from(step).expect("32 bits fit into memory")) {
            level = match self {
                Self::Constant => whole,
                Self::Steps if random.below(DAY) >= step => level,
                Self::Steps => (level + scale * random.unit()).round(),
                Self::Counter => level + (scale * random.unit()).round(),
                Self::Count => (scale * 0.02 * random.unit()).round(),
                Self::Gauge | Self::Rare => wander(level, random),
                Self::Noise => scale * (0.5 + random.unit()),
                Self::Sparse => (20.0 * random.unit()).round(),
            };
            let is_missing = random.unit() >= self.density() && time % DAY != 0;
            values.push(if is_missing { f64::NAN } else { level });
        }
        values
    }
}

/// Returns the next value of a gauge between 0 and 100, with two decimals.
fn wander(level: f64, random: &mut Random) -> f64 {
    let next = 0.98 * level + 0.4 + 4.0 * (random.unit() - 0.5);
    (next.clamp(0.0, 100.0) * 100.0).round() / 100.0
}

/// Numbers that look random and are the same for the same seed: `SplitMix64` (Steele, Lea, Flood 2014).
#[derive(Debug)]
pub(crate) struct Random {
    state: u64,
}

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self { state: mix(seed) }
    }

    const fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// Returns a number below `limit`, which is not 0.
    pub(crate) fn below(&mut self, limit: u32) -> u32 {
        let scaled = ((self.next() >> 32) * u64::from(limit)) >> 32;
        u32::try_from(scaled).expect("it is below a number of 32 bits")
    }

    /// Returns a number from 0 to before 1, with all digits of a double.
    fn unit(&mut self) -> f64 {
        let number = self.next();
        let half = |number: u64| f64::from(u32::try_from(number & 0xffff_ffff).expect("32 bits"));
        (half(number >> 32) + half(number) / 4_294_967_296.0) / 4_294_967_296.0
    }
}

const fn mix(number: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
