//! When coding in the background makes room for others: at pressure, outside of its hours, on battery, beyond its share of
//! the processor.
//!
//! Deciding is pure: what was seen in, a reason to wait out. Readers never wait for any of it, nor does whoever asks for
//! coding (`tersefs wait`, an unmount that waits): what was asked for is done. Segments that are with the coders already
//! are coded to their end.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::host::{self, Resource};

/// The machine is looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Pressure must fall to this part of what coding waits for, before it goes on: it would begin and end by turns.
const CALM: f64 = 0.5;
/// Processor time that may be saved up while nothing is coded, seconds of the clock.
const SAVED_S: f64 = 10.0;
/// And what was taken beyond it is paid back within this time, seconds of the clock: a segment may take minutes.
const OWED_S: f64 = 3600.0;
const DAY_MINUTES: u32 = 24 * 60;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Times of the week, by the local clock. Those that go past midnight are of the day on which they begin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hours(Vec<Window>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Window {
    /// A bit for each day, the lowest is Monday.
    days: u8,
    /// Minutes since midnight; `to` is not in it, and the next day's where it is not larger.
    from: u32,
    to: u32,
}

impl Hours {
    /// Reads "22:00-06:00", "Mon-Fri 20:00-08:00, Sat-Sun 00:00-24:00", "Sat 12:00-18:00".
    pub fn parse(text: &str) -> Result<Hours, String> {
        let windows: Option<Vec<Window>> = text.split(',').map(|part| Window::parse(part.trim())).collect();
        windows.map(Hours).ok_or_else(|| {
            format!("{text:?} are no hours: give them like 22:00-06:00, or Mon-Fri 20:00-08:00, Sat-Sun 00:00-24:00")
        })
    }

    /// True when a time of the week is in them; at all times where there are none.
    fn have(&self, day: u32, minute: u32) -> bool {
        self.0.is_empty() || self.0.iter().any(|window| window.has(day, minute))
    }
}

impl Window {
    fn parse(text: &str) -> Option<Window> {
        let (days, times) = match text.split_once(' ') {
            Some((days, times)) => (days_of(days)?, times.trim()),
            None => (0x7f, text),
        };
        let (from, to) = times.split_once('-')?;
        let (from, to) = (minutes_of(from)?, minutes_of(to)?);
        (from < DAY_MINUTES && from != to).then_some(Window { days, from, to })
    }

    fn has(&self, day: u32, minute: u32) -> bool {
        let on = |day: u32| self.days & (1 << day) != 0;
        if self.from < self.to {
            return on(day) && (self.from..self.to).contains(&minute);
        }
        (on(day) && minute >= self.from) || (on((day + 6) % 7) && minute < self.to)
    }
}

/// "Fri", or "Fri-Mon", as bits.
fn days_of(text: &str) -> Option<u8> {
    let day = |name: &str| DAYS.iter().position(|day| day.eq_ignore_ascii_case(name));
    let (from, to) = match text.split_once('-') {
        Some((from, to)) => (day(from)?, day(to)?),
        None => (day(text)?, day(text)?),
    };
    Some((0..=(to + 7 - from) % 7).fold(0, |days, n| days | 1 << ((from + n) % 7)))
}

/// "08:30", up to "24:00".
fn minutes_of(text: &str) -> Option<u32> {
    let (hour, minute) = text.split_once(':')?;
    let number = |text: &str| -> Option<u32> {
        (text.len() <= 2 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
    };
    let (hour, minute) = (number(hour)?, number(minute).filter(|m| *m < 60)?);
    Some(hour * 60 + minute).filter(|m| *m <= DAY_MINUTES)
}

/// What coding in the background makes room for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Manners {
    /// Percent of pressure from which on it waits, of processor, disk and memory; 0 means that it does not.
    pub pressure: [u32; 3],
    /// When it may be done.
    pub hours: Hours,
    /// It is done on battery too.
    pub on_battery: bool,
    /// Percent of one core that it may take; 0 means as much as others leave.
    pub cpu_percent: u32,
}

/// What was seen of the machine.
#[derive(Clone, Copy, Debug, Default)]
struct Sight {
    pressure: [Option<f64>; 3],
    on_battery: bool,
    day: u32,
    minute: u32,
}

impl Sight {
    /// Looks at what the manners ask about.
    fn look(manners: &Manners) -> Sight {
        let (day, minute) = host::local_time();
        let mut pressure = [None; 3];
        for ((seen, limit), resource) in pressure.iter_mut().zip(manners.pressure).zip(Resource::ALL) {
            *seen = (limit > 0).then(|| host::pressure(resource)).flatten();
        }
        Sight { pressure, on_battery: !manners.on_battery && host::on_battery(), day, minute }
    }
}

/// Why coding waits.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Why {
    Battery,
    Hours,
    Pressure(Resource, u32),
    Quota(u32),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Battery => f.write_str("the machine is on battery"),
            Why::Hours => f.write_str("it is not the time for coding (coding-hours)"),
            Why::Pressure(resource, limit) => {
                write!(f, "others wait for {}: the pressure is above {limit} %", resource.name())
            }
            Why::Quota(percent) => write!(f, "coding has had its {percent} % of a core"),
        }
    }
}

/// Why coding is to wait, from what was seen; `waiting` is true when it waits for pressure already.
fn decide(manners: &Manners, sight: &Sight, waiting: bool) -> Option<Why> {
    if sight.on_battery && !manners.on_battery {
        return Some(Why::Battery);
    }
    if !manners.hours.have(sight.day, sight.minute) {
        return Some(Why::Hours);
    }
    let part = if waiting { CALM } else { 1.0 };
    let of_each = Resource::ALL.into_iter().zip(manners.pressure).zip(sight.pressure);
    of_each
        .filter(|((_, limit), _)| *limit > 0)
        .find(|((_, limit), seen)| seen.is_some_and(|seen| seen > f64::from(*limit) * part))
        .map(|((resource, limit), _)| Why::Pressure(resource, limit))
}

/// Processor time that may be taken: it fills as the clock goes, and coding empties it. A segment takes what it takes, so it
/// may be below nothing for a while.
#[derive(Debug)]
struct Bucket {
    level_s: f64,
    at: Instant,
}

impl Bucket {
    /// Fills it until `now` and takes `spent_s` out.
    fn turn(&mut self, percent: u32, spent_s: f64, now: Instant) {
        if percent == 0 {
            // There is no share to keep to, and nothing is owed when there is one again.
            (self.level_s, self.at) = (0.0, now);
            return;
        }
        let rate = f64::from(percent) / 100.0;
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.level_s = (self.level_s + passed * rate).min(rate * SAVED_S) - spent_s;
        self.level_s = self.level_s.max(-rate * OWED_S);
        self.at = now;
    }
}

struct State {
    manners: Manners,
    seen: Option<Instant>,
    why: Option<Why>,
    bucket: Bucket,
}

/// Decides whether coding in the background waits.
pub(super) struct Neighbour {
    state: Mutex<State>,
    /// Processor time of coders that was not taken out of the bucket yet, microseconds.
    spent_us: AtomicU64,
}

impl Neighbour {
    pub fn new(manners: Manners) -> Neighbour {
        let bucket = Bucket { level_s: 0.0, at: Instant::now() };
        let state = State { manners, seen: None, why: None, bucket };
        Neighbour { state: Mutex::new(state), spent_us: AtomicU64::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Other manners count from now on.
    pub fn change(&self, manners: Manners) {
        let mut state = self.lock();
        if state.manners != manners {
            if state.manners.cpu_percent != manners.cpu_percent {
                state.bucket = Bucket { level_s: 0.0, at: Instant::now() };
                self.spent_us.store(0, Ordering::Relaxed);
            }
            (state.manners, state.seen) = (manners, None);
        }
    }

    /// Counts processor time that coding has taken, seconds.
    pub fn charge(&self, cpu_s: f64) {
        self.spent_us.fetch_add((cpu_s * 1e6) as u64, Ordering::Relaxed);
    }

    /// Why coding waits now, if it does. Looks at the machine at most every second.
    ///
    /// # Blocking
    /// A few small files of the kernel.
    pub fn waits(&self) -> Option<String> {
        let spent_s = self.spent_us.swap(0, Ordering::Relaxed) as f64 / 1e6;
        let mut state = self.lock();
        let now = Instant::now();
        let percent = state.manners.cpu_percent;
        state.bucket.turn(percent, spent_s, now);
        if state.seen.is_none_or(|seen| now.saturating_duration_since(seen) >= LOOK_EVERY) {
            let waiting = matches!(state.why, Some(Why::Pressure(..)));
            let why = decide(&state.manners, &Sight::look(&state.manners), waiting);
            if why != state.why {
                match why {
                    Some(why) => log::info!("coding waits: {why}"),
                    None => log::info!("coding goes on"),
                }
            }
            (state.why, state.seen) = (why, Some(now));
        }
        let over = percent > 0 && state.bucket.level_s <= 0.0;
        state.why.or(over.then_some(Why::Quota(percent))).map(|why| why.to_string())
    }

    /// True when coding has a share of the processor that it keeps to.
    pub fn has_quota(&self) -> bool {
        self.lock().manners.cpu_percent > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(text: &str) -> Hours {
        Hours::parse(text).unwrap()
    }

    #[test]
    fn hours_of_the_week() {
        let night = hours("22:00-06:00");
        for (day, minute, is) in [(0, 0, true), (3, 359, true), (3, 360, false), (6, 1319, false), (6, 1320, true)] {
            assert_eq!(night.have(day, minute), is, "{day} {minute}");
        }
        let work = hours("Mon-Fri 20:00-08:00, sat-SUN 00:00-24:00");
        // What begins on Friday evening ends on Saturday morning; Monday's morning is Sunday's, which has no such night.
        for (day, minute, is) in
            [(0, 60, false), (0, 1200, true), (1, 479, true), (1, 480, false), (5, 700, true), (6, 1439, true)]
        {
            assert_eq!(work.have(day, minute), is, "{day} {minute}");
        }
        let turn = hours("Sat-Mon 12:00-13:00");
        assert!(turn.have(5, 720) && turn.have(6, 720) && turn.have(0, 720) && !turn.have(1, 720));
        assert!(Hours::default().have(4, 4));
        for bad in [
            "",
            "22:00",
            "22-06",
            "25:00-06:00",
            "22:60-06:00",
            "24:00-06:00",
            "06:00-06:00",
            "Xyz 01:00-02:00",
            "Mon",
            "01:00-02:00,",
            "+1:00-02:00",
            "001:00-02:00",
            "Mon-Fri-Sat 01:00-02:00",
        ] {
            assert!(Hours::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_was_seen_says_whether_coding_waits() {
        let manners = Manners { pressure: [0, 40, 10], hours: hours("22:00-06:00"), ..Manners::default() };
        let calm = Sight { pressure: [Some(99.0), Some(40.0), None], minute: 60, ..Sight::default() };
        assert_eq!(decide(&manners, &calm, false), None);
        // Once it waits, the pressure must have fallen to half.
        assert_eq!(decide(&manners, &calm, true), Some(Why::Pressure(Resource::Io, 40)));
        let busy = Sight { pressure: [None, Some(20.0), Some(10.1)], ..calm };
        assert_eq!(decide(&manners, &busy, false), Some(Why::Pressure(Resource::Memory, 10)));
        assert_eq!(decide(&manners, &Sight { minute: 720, ..busy }, false), Some(Why::Hours));
        let battery = Sight { on_battery: true, ..calm };
        assert_eq!(decide(&manners, &battery, false), Some(Why::Battery));
        assert_eq!(decide(&Manners { on_battery: true, ..manners }, &battery, false), None);
        assert_eq!(decide(&Manners::default(), &Sight { pressure: [Some(99.0); 3], ..calm }, false), None);
    }

    #[test]
    fn a_share_of_the_processor_is_kept_to() {
        let start = Instant::now();
        let mut bucket = Bucket { level_s: 0.0, at: start };
        let mut spent = 0.0;
        // Segments of half a second each, whenever there is something in the bucket; a look every tenth of a second.
        for tick in 1..=6000u32 {
            bucket.turn(25, 0.0, start + Duration::from_millis(u64::from(tick) * 100));
            if bucket.level_s > 0.0 {
                bucket.turn(25, 0.5, start + Duration::from_millis(u64::from(tick) * 100));
                spent += 0.5;
            }
        }
        assert!((148.0..=151.0).contains(&spent), "a quarter of 600 s: {spent}");
        // What was taken without a share is not owed, and no debt is for ever.
        bucket.turn(0, 1e6, start + Duration::from_secs(1000));
        bucket.turn(25, 0.0, start + Duration::from_secs(1001));
        assert!(bucket.level_s > 0.0);
        bucket.turn(25, 1e6, start + Duration::from_secs(1002));
        bucket.turn(25, 0.0, start + Duration::from_secs(5000));
        assert!(bucket.level_s > 0.0);
        // After a long pause no more is there than was saved up.
        bucket.turn(25, 0.0, start + Duration::from_secs(100_000));
        assert!(bucket.level_s <= 2.5);
    }

    #[test]
    fn manners_change_at_once() {
        let neighbour = Neighbour::new(Manners { on_battery: true, ..Manners::default() });
        assert_eq!(neighbour.waits(), None);
        let (day, minute) = host::local_time();
        // An hour that begins in two: never now.
        let from = (minute + 120) % DAY_MINUTES / 60;
        let other = hours(&format!("{} {from:02}:00-{from:02}:30", DAYS[((day + 1) % 7) as usize]));
        let manners = Manners { hours: other, on_battery: true, ..Manners::default() };
        neighbour.change(manners.clone());
        assert!(neighbour.waits().is_some_and(|why| why.contains("coding-hours")));
        neighbour.change(Manners { hours: Hours::default(), cpu_percent: 50, ..manners });
        neighbour.charge(100.0);
        assert!(neighbour.waits().is_some_and(|why| why.contains("50 % of a core")));
    }
}
