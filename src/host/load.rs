//! What else the machine is busy with: pressure, power, and the time of day where it stands.

use std::fs;
use std::path::Path;

use super::{machine, sys};

/// Something that programs wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    Cpu,
    Io,
    Memory,
}

impl Resource {
    pub const ALL: [Resource; 3] = [Resource::Cpu, Resource::Io, Resource::Memory];

    pub fn name(self) -> &'static str {
        match self {
            Resource::Cpu => "cpu",
            Resource::Io => "io",
            Resource::Memory => "memory",
        }
    }
}

/// Part of the last ten seconds in which some program waited for a resource, percent (PSI); `None` where the kernel does not
/// tell.
pub fn pressure(resource: Resource) -> Option<f64> {
    pressure_in(Path::new("/proc/pressure"), resource)
}

fn pressure_in(dir: &Path, resource: Resource) -> Option<f64> {
    let text = fs::read_to_string(dir.join(resource.name())).ok()?;
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    some.split_whitespace().find_map(|field| field.strip_prefix("avg10=")?.parse().ok())
}

/// True when the machine runs on a battery: one is being emptied, and no power comes from outside.
pub fn on_battery() -> bool {
    on_battery_in(Path::new("/sys/class/power_supply"))
}

fn on_battery_in(dir: &Path) -> bool {
    let Ok(entries) = fs::read_dir(dir) else { return false };
    let mut emptied = false;
    for entry in entries.flatten() {
        let read = |name: &str| fs::read_to_string(entry.path().join(name)).unwrap_or_default().trim().to_string();
        // Those of mice and keyboards are not what this machine runs on.
        let of_device = read("scope") == "Device";
        match read("type").as_str() {
            "Battery" => emptied |= !of_device && read("status") == "Discharging",
            // Mains, and USB in all its kinds.
            _ if !of_device && read("online") == "1" => return false,
            _ => {}
        }
    }
    emptied
}

/// Day of the week, 0 is Monday, and minutes since midnight, where this machine stands.
pub fn local_time() -> (u32, u32) {
    sys::local_time(machine::now().0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_read_where_the_kernel_tells() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(pressure_in(dir.path(), Resource::Io), None);
        let text =
            "some avg10=12.50 avg60=1.00 avg300=0.10 total=123\nfull avg10=99.00 avg60=0.00 avg300=0.00 total=1\n";
        fs::write(dir.path().join("io"), text).unwrap();
        fs::write(dir.path().join("cpu"), "full avg10=1.00\nsome avg10=nonsense\n").unwrap();
        assert_eq!(pressure_in(dir.path(), Resource::Io), Some(12.5));
        assert_eq!(pressure_in(dir.path(), Resource::Cpu), None);
    }

    #[test]
    fn a_battery_counts_when_it_is_all_there_is() {
        let dir = tempfile::tempdir().unwrap();
        let set = |supply: &str, fields: &[(&str, &str)]| {
            let at = dir.path().join(supply);
            fs::create_dir_all(&at).unwrap();
            fields.iter().for_each(|(name, value)| fs::write(at.join(name), format!("{value}\n")).unwrap());
        };
        assert!(!on_battery_in(&dir.path().join("none")) && !on_battery_in(dir.path()));
        set("mouse", &[("type", "Battery"), ("scope", "Device"), ("status", "Discharging")]);
        assert!(!on_battery_in(dir.path()));
        set("BAT0", &[("type", "Battery"), ("status", "Charging")]);
        assert!(!on_battery_in(dir.path()));
        set("BAT0", &[("status", "Discharging")]);
        assert!(on_battery_in(dir.path()));
        set("AC", &[("type", "Mains"), ("online", "0")]);
        assert!(on_battery_in(dir.path()));
        set("AC", &[("online", "1")]);
        assert!(!on_battery_in(dir.path()), "a battery may be emptied beside a weak supply");
    }

    #[test]
    fn the_clock_of_this_machine_is_within_a_day_of_the_other() {
        let (day, minute) = local_time();
        assert!(day < 7 && minute < 24 * 60);
        // 2024-02-29 was a Thursday.
        let (day, _) = sys::local_time(1_709_208_000);
        assert!((2..=4).contains(&day), "wherever this machine stands");
    }
}
