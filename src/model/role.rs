//! Roles of a process. Processes that share an inbox may share the work.

use std::fmt;
use std::str::FromStr;

/// A part of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Takes events in: the public listener.
    Ingress,
    /// Gets them there, and removes what is too old.
    Dispatch,
    /// Answers operators: the admin API.
    Admin,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Ingress, Self::Dispatch, Self::Admin];

    /// A stable word for settings and display.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Dispatch => "dispatch",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is not a role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("roles are ingress, dispatch and admin, separated by commas")]
pub struct UnknownRole;

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or(UnknownRole)
    }
}

/// The roles of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles {
    /// [`Role::Ingress`]
    pub ingress: bool,
    /// [`Role::Dispatch`]
    pub dispatch: bool,
    /// [`Role::Admin`]
    pub admin: bool,
}

impl Roles {
    /// A process that does everything.
    pub const ALL: Self = Self {
        ingress: true,
        dispatch: true,
        admin: true,
    };

    /// True if the process has every role.
    pub fn are_all(self) -> bool {
        self == Self::ALL
    }

    const fn has(self, role: Role) -> bool {
        match role {
            Role::Ingress => self.ingress,
            Role::Dispatch => self.dispatch,
            Role::Admin => self.admin,
        }
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        let mut all = Self {
            ingress: false,
            dispatch: false,
            admin: false,
        };
        for role in roles {
            match role {
                Role::Ingress => all.ingress = true,
                Role::Dispatch => all.dispatch = true,
                Role::Admin => all.admin = true,
            }
        }
        all
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = Role::ALL
            .into_iter()
            .filter(|role| self.has(*role))
            .map(Role::as_str)
            .collect();
        f.write_str(&names.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_read_and_written_as_the_same_words() {
        let some: Roles = ["admin", "ingress"]
            .iter()
            .map(|text| text.parse::<Role>().expect("a role"))
            .collect();
        assert_eq!(
            (some.ingress, some.dispatch, some.admin),
            (true, false, true)
        );
        assert_eq!(some.to_string(), "ingress,admin");
        assert!(Role::ALL.into_iter().collect::<Roles>().are_all());
        assert_eq!("Ingress".parse::<Role>(), Err(UnknownRole));
    }
}
