//! Messages of `coder.agentsocket.v1.AgentSocket`, by field number.

/// Nothing to say.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Empty {}

/// A unit of work, by name.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Named {
    /// The name.
    #[prost(string, tag = "1")]
    pub unit: String,
}

/// One unit waits for another.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Want {
    /// The one that waits.
    #[prost(string, tag = "1")]
    pub unit: String,
    /// The other.
    #[prost(string, tag = "2")]
    pub depends_on: String,
}

/// Whether a unit may begin.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Ready {
    /// All it waits for has ended.
    #[prost(bool, tag = "1")]
    pub ready: bool,
}

/// How far a unit is.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct UnitStatus {
    /// `pending`, `started`, `completed` or nothing.
    #[prost(string, tag = "1")]
    pub status: String,
    /// Whether it may begin.
    #[prost(bool, tag = "2")]
    pub is_ready: bool,
    /// What it waits for.
    #[prost(message, repeated, tag = "3")]
    pub dependencies: Vec<Dependency>,
}

/// One thing a unit waits for.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Dependency {
    /// The unit.
    #[prost(string, tag = "1")]
    pub unit: String,
    /// What it waits for.
    #[prost(string, tag = "2")]
    pub depends_on: String,
    /// The status that has to have.
    #[prost(string, tag = "3")]
    pub required_status: String,
    /// The status it has.
    #[prost(string, tag = "4")]
    pub current_status: String,
    /// Whether those are the same.
    #[prost(bool, tag = "5")]
    pub is_satisfied: bool,
}

/// All units.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct List {
    /// By name.
    #[prost(message, repeated, tag = "1")]
    pub units: Vec<Listed>,
}

/// One of all units.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Listed {
    /// The name.
    #[prost(string, tag = "1")]
    pub unit: String,
    /// As in [`UnitStatus`].
    #[prost(string, tag = "2")]
    pub status: String,
    /// As in [`UnitStatus`].
    #[prost(bool, tag = "3")]
    pub is_ready: bool,
}
