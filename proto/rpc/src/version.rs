//! The API version that a dialer asks for.

use std::{fmt, num::ParseIntError, str::FromStr};

/// Version of the agent and tailnet API, `MAJOR.MINOR`. 2.10 is newer than
/// 2.9.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Incompatible with any other major version.
    pub major: u32,
    /// Grows with each added method.
    pub minor: u32,
}

impl Version {
    /// The newest version that this crate knows.
    pub const CURRENT: Self = Self {
        major: 2,
        minor: 10,
    };
    /// What a dialer means that names no version.
    pub const DEFAULT: Self = Self { major: 2, minor: 0 };

    /// Whether a server of this version serves a dialer that asks for
    /// `wanted`.
    ///
    /// # Errors
    /// The refusal, whose text is the detail of the server's answer.
    pub fn accept(self, wanted: Self) -> Result<(), VersionError> {
        if wanted.major > self.major {
            Err(VersionError::BehindMajor {
                server: self,
                wanted,
            })
        } else if wanted.major < self.major {
            Err(VersionError::Unsupported(wanted))
        } else if wanted.minor > self.minor {
            Err(VersionError::BehindMinor {
                server: self,
                wanted,
            })
        } else {
            Ok(())
        }
    }

    /// The version of the server, from the detail of its refusal. A dialer can
    /// try again with it.
    ///
    /// ```
    /// use adit_rpc::Version;
    /// let detail = "server is at version 2.9, behind requested minor version 2.10";
    /// assert_eq!(Version::from_refusal(detail), Some(Version { major: 2, minor: 9 }));
    /// ```
    #[must_use]
    pub fn from_refusal(detail: &str) -> Option<Self> {
        let (_, rest) = detail.split_once("server is at version ")?;
        let (version, _) = rest.split_once(',')?;
        version.parse().ok()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Why a version is not served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VersionError {
    /// Not two parts.
    #[error("invalid version string: {0}")]
    Form(String),
    /// The major part is not a number.
    #[error("invalid major version: {0}")]
    Major(String),
    /// The minor part is not a number.
    #[error("invalid minor version: {0}")]
    Minor(String),
    /// The dialer is of a newer major version.
    #[error("server is at version {server}, behind requested major version {wanted}")]
    BehindMajor {
        /// Version of the server.
        server: Version,
        /// What the dialer wants.
        wanted: Version,
    },
    /// The dialer is of a newer minor version.
    #[error("server is at version {server}, behind requested minor version {wanted}")]
    BehindMinor {
        /// Version of the server.
        server: Version,
        /// What the dialer wants.
        wanted: Version,
    },
    /// The dialer is of an older major version.
    #[error("version {0} is no longer supported")]
    Unsupported(Version),
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let mut parts = text.split('.');
        let (Some(major), Some(minor), None) = (parts.next(), parts.next(), parts.next()) else {
            return Err(VersionError::Form(text.to_owned()));
        };
        let major = number(major).map_err(|_| VersionError::Major(text.to_owned()))?;
        let minor = number(minor).map_err(|_| VersionError::Minor(text.to_owned()))?;
        Ok(Self { major, minor })
    }
}

fn number(text: &str) -> Result<u32, ParseIntError> {
    text.parse()
}
