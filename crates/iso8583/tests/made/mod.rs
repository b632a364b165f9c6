//! Messages made at random, sound in their dialect.
#![allow(dead_code, reason = "not every test uses all of it")]

use iso8583::{Codec, Content, Dialect, Draft, FIELDS_MAX, FieldSpec, Mti, Profile, Size};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

/// The profiles, by the names that tests print.
pub(crate) const PROFILES: [(&str, Profile); 4] = [
    ("ascii", Profile::ASCII),
    ("ascii_raw", Profile::ASCII_RAW),
    ("binary", Profile::BINARY),
    ("ebcdic", Profile::EBCDIC),
];

/// A codec of each dialect and profile.
pub(crate) fn codec() -> impl Strategy<Value = Codec> {
    let dialect = prop_oneof![Just(Dialect::V1987), Just(Dialect::V1993)];
    (dialect, 0..PROFILES.len()).prop_map(|(dialect, at)| Codec { dialect, profile: PROFILES[at].1 })
}

/// A message of any type with up to 20 fields, each full or of any length that it may have.
pub(crate) fn draft(dialect: Dialect) -> impl Strategy<Value = Draft> {
    let mti = (0..8_u8, 0..5_u8, 0..6_u8);
    let known = (2..=FIELDS_MAX).filter(move |field| dialect.field(*field).is_some());
    let fields = btree_set(prop::sample::select(known.collect::<Vec<_>>()), 0..20);
    (mti, fields)
        .prop_flat_map(move |(mti, fields)| {
            let units = fields.into_iter().map(move |field| {
                let spec = dialect.field(field).expect("a known field");
                units(spec).prop_map(move |units| (field, units))
            });
            (Just(mti), units.collect::<Vec<_>>())
        })
        .prop_map(move |((class, function, origin), fields)| {
            let digits = [b'0' + dialect.version() as u8, b'1' + class, b'0' + function, b'0' + origin];
            let mut draft = Draft::new(dialect);
            draft.reset(Mti::from_digits(digits).expect("digits in range"));
            fields.iter().for_each(|(field, units)| draft.set(*field, units));
            draft
        })
}

/// What a field may hold, in canonical form.
fn units(spec: &FieldSpec) -> impl Strategy<Value = Vec<u8>> + use<> {
    let max = usize::from(spec.size.max());
    let unit = match spec.content {
        Content::Digits => prop::sample::select((b'0'..=b'9').collect::<Vec<_>>()).boxed(),
        Content::Text => prop::sample::select((b' '..=b'~').collect::<Vec<_>>()).boxed(),
        Content::Track => prop::sample::select(b"0123456789=".to_vec()).boxed(),
        Content::Bytes => any::<u8>().boxed(),
    };
    // In hexadecimal characters a length has three digits for two characters a byte.
    let max = if spec.content == Content::Bytes { max.min(499) } else { max };
    let length = match spec.size {
        Size::Fixed(_) => max..=max,
        Size::Ll(_) | Size::Lll(_) => 0..=max,
    };
    vec(unit, length)
}
