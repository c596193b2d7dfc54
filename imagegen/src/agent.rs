//! What the agent's program was linked from: its crates, and what the compiler adds. It lies beside the program as JSON, because the program
//! is built seldom and its bill is wanted with every image.
//!
//! The builder knows nothing else of the agent: not its code, not its crates' names.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::sha256::Sha256;

/// What a program was linked from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AgentBill {
    /// The crate that the program is of; the first word of every message about it.
    pub name: String,
    /// The target it was built for, such as `aarch64-unknown-linux-musl`.
    pub target: String,
    /// The compiler, as `rustc -V` says it.
    pub compiler: String,
    /// The program's own crate, and all that are linked into it.
    pub crates: Vec<Crate>,
    /// What the compiler links into every program.
    pub libraries: Vec<Library>,
}

/// A crate that was linked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Crate {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Digest of its archive, where it came as one.
    pub checksum: Option<Sha256>,
    /// The licence its manifest states.
    pub licence: Option<String>,
    /// Copyright notices and licences by the names of their files.
    pub notices: BTreeMap<String, String>,
    /// Those of the linked crates that it needs: name and version.
    pub needs: BTreeSet<(String, String)>,
}

/// What comes with the compiler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Library {
    /// Its name.
    pub name: String,
    /// Its version, where it is known.
    pub version: Option<String>,
    /// Its licence as an SPDX expression.
    pub licence: String,
    /// Copyright notices and licences by the names of their files.
    pub notices: BTreeMap<String, String>,
}

/// A text that is no bill.
#[derive(Debug, thiserror::Error)]
#[error("the bill of the agent is not written as it should be")]
pub struct ParseBillError(#[source] serde_json::Error);

impl AgentBill {
    /// Returns the bill as JSON.
    #[must_use]
    pub fn encode(&self) -> String {
        serde_json::to_string(self).expect("a bill is a structure of texts, which JSON has")
    }

    /// Reads what [`AgentBill::encode`] wrote.
    pub fn parse(text: &str) -> Result<Self, ParseBillError> {
        serde_json::from_str(text).map_err(ParseBillError)
    }
}
