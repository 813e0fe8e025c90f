//! What the owner word of a znode's status means. Source: `EphemeralType.java`; reference §3.5.

use zoometry_wire::{ErrorCode, SessionId, StatPersisted};

/// The longest time to live: 40 bits of milliseconds, about 34 years.
pub const MAX_TTL_MS: i64 = (1 << 40) - 1;

/// The owner word of a container.
pub const CONTAINER: SessionId = SessionId(i64::MIN);

const EXTENDED: u64 = 0xff << 56;
const FEATURE: u64 = 0xffff << 40;

/// Why a znode will go away, if it will.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Only when it is deleted.
    Nobody,
    /// With its session.
    Session(SessionId),
    /// When its last child has gone.
    Container,
    /// When it has had no child and no change for this long, ms.
    Ttl(i64),
}

impl Owner {
    /// The meaning of a stored word. With extended types off a TTL word reads as an ordinary session.
    pub fn of(stat: &StatPersisted, extended_types: bool) -> Self {
        let word = stat.ephemeral_owner;
        match word.0 {
            0 => Self::Nobody,
            i64::MIN => Self::Container,
            _ if extended_types && word.0 as u64 & (EXTENDED | FEATURE) == EXTENDED => {
                Self::Ttl(word.0 & MAX_TTL_MS)
            }
            _ => Self::Session(word),
        }
    }

    /// The owner as clients see it: containers and TTL znodes have none.
    pub fn visible(self) -> SessionId {
        if let Self::Session(session) = self { session } else { SessionId(0) }
    }
}

/// The owner word of a TTL znode. BadArguments outside 1 ..= [`MAX_TTL_MS`].
pub fn ttl_word(ttl_ms: i64) -> Result<SessionId, ErrorCode> {
    if !(1..=MAX_TTL_MS).contains(&ttl_ms) {
        return Err(ErrorCode::BadArguments);
    }
    Ok(SessionId((EXTENDED | ttl_ms as u64) as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let of = |word, extended| {
            Owner::of(
                &StatPersisted { ephemeral_owner: SessionId(word), ..StatPersisted::default() },
                extended,
            )
        };
        let ttl = ttl_word(MAX_TTL_MS).unwrap();
        assert_eq!(ttl.0 as u64, 0xff00_00ff_ffff_ffff);
        assert_eq!(of(ttl.0, true), Owner::Ttl(MAX_TTL_MS));
        assert_eq!(of(ttl.0, false), Owner::Session(ttl));
        assert_eq!(of(i64::MIN, true), Owner::Container);
        assert_eq!(of(0, true), Owner::Nobody);
        assert_eq!(of(0x0100_0000_0000_0005, true), Owner::Session(SessionId(0x0100_0000_0000_0005)));
        assert_eq!(ttl_word(0), Err(ErrorCode::BadArguments));
        assert_eq!(ttl_word(MAX_TTL_MS + 1), Err(ErrorCode::BadArguments));
    }
}
