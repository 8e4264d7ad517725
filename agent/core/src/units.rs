//! Units of work in a workspace and what each waits for.
//!
//! Scripts that run side by side name themselves, what they depend on, and
//! when they begin and end, so that one can wait for another.

use std::collections::{BTreeMap, BTreeSet};

/// Units kept; further names are refused.
const MOST: usize = 1_024;
/// Longest name, in bytes.
const LONGEST: usize = 1_024;

/// How far a unit is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Status {
    /// Nobody has registered it.
    #[default]
    Unknown,
    /// It has not begun.
    Pending,
    /// It has begun.
    Started,
    /// It has ended.
    Completed,
}

impl Status {
    /// The name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "",
            Self::Pending => "pending",
            Self::Started => "started",
            Self::Completed => "completed",
        }
    }
}

/// Why a change is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// The empty name.
    #[error("unit name is required")]
    NoName,
    /// A name nobody should need.
    #[error("unit name is too long")]
    LongName,
    /// More units than a workspace should need.
    #[error("too many units")]
    TooMany,
    /// Something it waits for has not ended.
    #[error("cannot start unit {0:?}: unit not ready")]
    NotReady(String),
    /// It has that status already.
    #[error("same status already set")]
    Same,
    /// It was neither started nor given something to wait for.
    #[error("unit {0:?} must be registered first")]
    Unregistered(String),
    /// The units would wait for each other.
    #[error("cycle detected: {0:?} and {1:?} would wait for each other")]
    Cycle(String, String),
}

/// One thing a unit waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// Name of the other unit.
    pub on: String,
    /// How far that is; it has to be completed.
    pub status: Status,
}

#[derive(Debug, Default)]
struct Unit {
    status: Status,
    needs: BTreeSet<String>,
}

/// All units of a workspace.
#[derive(Debug, Default)]
pub struct Units {
    all: BTreeMap<String, Unit>,
}

impl Units {
    /// Makes `unit` wait for `on`, which need not be known yet.
    ///
    /// # Errors
    /// [`UnitError`]; nothing changes then.
    pub fn handle_want(&mut self, unit: &str, on: &str) -> Result<(), UnitError> {
        check(unit)?;
        check(on)?;
        if unit == on || self.reaches(on, unit) {
            return Err(UnitError::Cycle(unit.to_owned(), on.to_owned()));
        }
        let unit = self.register(unit)?;
        if unit.needs.len() >= MOST {
            return Err(UnitError::TooMany);
        }
        unit.needs.insert(on.to_owned());
        Ok(())
    }

    /// Begins `unit`.
    ///
    /// # Errors
    /// [`UnitError`]; the unit is registered even if it is not ready.
    pub fn handle_start(&mut self, unit: &str) -> Result<(), UnitError> {
        check(unit)?;
        self.register(unit)?;
        if !self.is_ready(unit) {
            return Err(UnitError::NotReady(unit.to_owned()));
        }
        self.set(unit, Status::Started)
    }

    /// Ends `unit`.
    ///
    /// # Errors
    /// [`UnitError`].
    pub fn handle_complete(&mut self, unit: &str) -> Result<(), UnitError> {
        check(unit)?;
        self.set(unit, Status::Completed)
    }

    /// Whether everything `unit` waits for has ended. One that nobody knows
    /// waits for nothing.
    #[must_use]
    pub fn is_ready(&self, unit: &str) -> bool {
        self.dependencies(unit)
            .iter()
            .all(|d| d.status == Status::Completed)
    }

    /// How far `unit` is.
    #[must_use]
    pub fn status(&self, unit: &str) -> Status {
        self.all.get(unit).map(|u| u.status).unwrap_or_default()
    }

    /// What `unit` waits for, by name.
    #[must_use]
    pub fn dependencies(&self, unit: &str) -> Vec<Dependency> {
        let needs = self.all.get(unit).map(|u| &u.needs);
        let dependency = |on: &String| Dependency {
            on: on.clone(),
            status: self.status(on),
        };
        needs.into_iter().flatten().map(dependency).collect()
    }

    /// All registered units, by name.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.all.keys().map(String::as_str)
    }

    fn register(&mut self, name: &str) -> Result<&mut Unit, UnitError> {
        if self.all.len() >= MOST && !self.all.contains_key(name) {
            return Err(UnitError::TooMany);
        }
        let new = || Unit {
            status: Status::Pending,
            needs: BTreeSet::new(),
        };
        Ok(self.all.entry(name.to_owned()).or_insert_with(new))
    }

    fn set(&mut self, name: &str, status: Status) -> Result<(), UnitError> {
        let Some(unit) = self.all.get_mut(name) else {
            return Err(UnitError::Unregistered(name.to_owned()));
        };
        if unit.status == status {
            return Err(UnitError::Same);
        }
        unit.status = status;
        Ok(())
    }

    /// Whether `from` waits for `to`, over any number of others.
    fn reaches(&self, from: &str, to: &str) -> bool {
        let mut seen = BTreeSet::new();
        let mut open = vec![from];
        while let Some(name) = open.pop() {
            if name == to {
                return true;
            }
            if seen.insert(name)
                && let Some(unit) = self.all.get(name)
            {
                open.extend(unit.needs.iter().map(String::as_str));
            }
        }
        false
    }
}

fn check(name: &str) -> Result<(), UnitError> {
    match name.len() {
        0 => Err(UnitError::NoName),
        n if n > LONGEST => Err(UnitError::LongName),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_unit_waits_for_all_it_wants() {
        let mut units = Units::default();
        assert!(units.is_ready("app"));
        units.handle_want("app", "db").expect("new");
        units.handle_want("app", "clone").expect("new");
        assert_eq!(units.status("app"), Status::Pending);
        assert_eq!(
            units.handle_start("app").expect_err("waits").to_string(),
            "cannot start unit \"app\": unit not ready"
        );
        for name in ["db", "clone"] {
            assert!(!units.is_ready("app"));
            units.handle_start(name).expect("ready");
            assert_eq!(units.handle_start(name), Err(UnitError::Same));
            units.handle_complete(name).expect("started");
        }
        units.handle_start("app").expect("ready");
        assert_eq!(units.status("app").name(), "started");
        assert_eq!(units.names().collect::<Vec<_>>(), ["app", "clone", "db"]);
    }

    #[test]
    fn mistakes_are_refused() {
        let mut units = Units::default();
        assert_eq!(units.handle_start(""), Err(UnitError::NoName));
        assert!(matches!(
            units.handle_complete("x"),
            Err(UnitError::Unregistered(_))
        ));
        assert!(matches!(
            units.handle_want("x", "x"),
            Err(UnitError::Cycle(..))
        ));
        units.handle_want("a", "b").expect("new");
        units.handle_want("b", "c").expect("new");
        assert!(matches!(
            units.handle_want("c", "a"),
            Err(UnitError::Cycle(..))
        ));
        assert_eq!(units.status("c"), Status::Unknown);
    }

    proptest! {
        /// Whatever is wanted, there is always a way to end every unit.
        #[test]
        fn nothing_ever_waits_for_itself(wants in prop::collection::vec((0u8..8, 0u8..8), 0..60)) {
            let mut units = Units::default();
            for (unit, on) in wants {
                let _ = units.handle_want(&unit.to_string(), &on.to_string());
            }
            for _ in 0..8 {
                for name in (0..8).map(|n| n.to_string()) {
                    let _ = units.handle_start(&name);
                    if units.status(&name) == Status::Started {
                        units.handle_complete(&name).expect("started");
                    }
                }
            }
            let names: Vec<_> = units.names().map(str::to_owned).collect();
            for name in names {
                prop_assert_eq!(units.status(&name), Status::Completed);
            }
        }
    }
}
