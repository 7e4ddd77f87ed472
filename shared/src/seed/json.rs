//! The JSON form of proto3 messages, as far as a CloneJob has need of it: what is absent or `null` is the
//! default, a default is not written, names are read in lowerCamel and in snake_case, enums by name and by
//! number, unknown fields are ignored, and of a oneof there is at most one member.

use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error, MapAccess};
use serde::ser::{Serialize, SerializeMap};
use std::collections::BTreeMap;

/// The value of a field.
pub trait Field: Default + PartialEq + Serialize {
    /// Reads what is there and not `null`.
    fn read<'de, D: Deserializer<'de>>(d: D) -> Result<Self, D::Error>;
}

macro_rules! as_serde_reads {
    ($([$($of:tt)*] $ty:ty,)*) => {$(
        impl<$($of)*> $crate::seed::json::Field for $ty {
            fn read<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                serde::Deserialize::deserialize(d)
            }
        }
    )*};
}
pub(super) use as_serde_reads;

as_serde_reads! {
    [] String,
    [] bool,
    [] Option<crate::Timestamp>,
    [] Option<crate::Status>,
    [] BTreeMap<String, String>,
    [T: PartialEq + Serialize + DeserializeOwned] Vec<T>,
}

impl Field for i32 {
    fn read<'de, D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match Scalar::deserialize(d)? {
            Scalar::Number(n) => exact(n),
            Scalar::Text(text) => text.parse().ok(),
        }
        .ok_or_else(|| Error::custom("not a whole number of 32 bits"))
    }
}

/// What stands for an integer or for a value of an enum.
#[derive(serde::Deserialize)]
#[serde(untagged, expecting = "neither a number nor a text")]
pub enum Scalar {
    /// Any JSON number.
    Number(f64),
    /// A name, or a number in quotes.
    Text(String),
}

impl Scalar {
    /// Whether it is this value of an enum.
    pub fn is(&self, number: i32, word: &str) -> bool {
        match self {
            Self::Number(n) => exact(*n) == Some(number),
            Self::Text(text) => text == word,
        }
    }
}

impl std::fmt::Display for Scalar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(n) => n.fmt(f),
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}

fn exact(n: f64) -> Option<i32> {
    let whole = n as i32; // saturates; the comparison finds what does not fit
    (f64::from(whole) == n).then_some(whole)
}

struct Read<T>(T);

impl<'de, T: Field> Deserialize<'de> for Read<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        T::read(d).map(Read)
    }
}

/// Reads a field into its slot.
pub fn take<'de, T: Field, A: MapAccess<'de>>(
    slot: &mut Option<T>,
    name: &'static str,
    map: &mut A,
) -> Result<(), A::Error> {
    if slot.is_some() {
        return Err(Error::duplicate_field(name));
    }
    *slot = Some(
        map.next_value::<Option<Read<T>>>()?
            .map(|read| read.0)
            .unwrap_or_default(),
    );
    Ok(())
}

/// Reads a member of a oneof into the slot that its members share.
pub fn take_member<'de, O, T: Deserialize<'de>, A: MapAccess<'de>>(
    slot: &mut Option<(&'static str, O)>,
    name: &'static str,
    wrap: fn(T) -> O,
    map: &mut A,
) -> Result<(), A::Error> {
    let Some(value) = map.next_value::<Option<T>>()? else {
        return Ok(());
    };
    match slot {
        Some((other, _)) if *other == name => Err(Error::duplicate_field(name)),
        Some((other, _)) => Err(Error::custom(format_args!(
            "`{other}` and `{name}` exclude each other, and both are set"
        ))),
        None => {
            *slot = Some((name, wrap(value)));
            Ok(())
        }
    }
}

/// Writes a field, unless it is the default.
pub fn put<T: Field, M: SerializeMap>(map: M, name: &'static str, value: &T) -> Result<M, M::Error> {
    if *value == T::default() {
        Ok(map)
    } else {
        put_member(map, name, value)
    }
}

/// Writes the member of a oneof that is set.
pub fn put_member<T: Serialize, M: SerializeMap>(
    mut map: M,
    name: &'static str,
    value: &T,
) -> Result<M, M::Error> {
    map.serialize_entry(name, value)?;
    Ok(map)
}

/// A message: a struct of its fields, and its oneof as an enum.
macro_rules! message {
    (
        $(#[$doc:meta])*
        $name:ident { $($(#[$fdoc:meta])* $field:ident $json:literal: $ty:ty,)* }
        $(
            $(#[$odoc:meta])*
            oneof $oneof:ident: $Oneof:ident {
                $($(#[$mdoc:meta])* $member:ident $mjson:literal: $Variant:ident($mty:ty),)*
            }
        )?
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $name {
            $($(#[$fdoc])* pub $field: $ty,)*
            $($(#[$odoc])* pub $oneof: Option<$Oneof>,)?
        }

        $(
            $(#[$odoc])*
            #[derive(Clone, Debug, PartialEq)]
            pub enum $Oneof { $($(#[$mdoc])* $Variant($mty),)* }

            impl $Oneof {
                /// Every member, by its name on the wire.
                pub const CASES: &[&str] = &[$($mjson),*];

                /// Which member it is, by its name on the wire.
                pub const fn case(&self) -> &'static str {
                    match self { $(Self::$Variant(_) => $mjson,)* }
                }
            }
        )?

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                let map = s.serialize_map(None)?;
                $(let map = $crate::seed::json::put(map, $json, &self.$field)?;)*
                $(
                    let map = match &self.$oneof {
                        $(Some($Oneof::$Variant(value)) => $crate::seed::json::put_member(map, $mjson, value)?,)*
                        None => map,
                    };
                )?
                serde::ser::SerializeMap::end(map)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                struct Visitor;

                impl<'de> serde::de::Visitor<'de> for Visitor {
                    type Value = $name;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str(concat!("an object: ", stringify!($name)))
                    }

                    // A name of one word is the same in both styles.
                    #[allow(unreachable_patterns)]
                    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<$name, A::Error> {
                        $(let mut $field: Option<$ty> = None;)*
                        $(let mut $oneof: Option<(&'static str, $Oneof)> = None;)?
                        while let Some(key) = map.next_key::<String>()? {
                            match key.as_str() {
                                $($json | stringify!($field) => {
                                    $crate::seed::json::take(&mut $field, $json, &mut map)?;
                                })*
                                $($($mjson | stringify!($member) => {
                                    $crate::seed::json::take_member(&mut $oneof, $mjson, $Oneof::$Variant, &mut map)?;
                                })*)?
                                _ => {
                                    map.next_value::<serde::de::IgnoredAny>()?;
                                }
                            }
                        }
                        Ok($name {
                            $($field: $field.unwrap_or_default(),)*
                            $($oneof: $oneof.map(|(_, member)| member),)?
                        })
                    }
                }

                d.deserialize_map(Visitor)
            }
        }

        $crate::seed::json::as_serde_reads! { [] Option<$name>, }
    };
}
pub(super) use message;

/// An enum with the numbers and words of the protocol.
macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $number:literal, $word:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant = $number,)* }

        impl $name {
            /// Every value.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The number in the protocol.
            pub const fn number(self) -> i32 {
                self as i32
            }

            /// The name on the wire.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            fn find(scalar: &$crate::seed::json::Scalar) -> Option<Self> {
                Self::ALL.iter().copied().find(|v| scalar.is(v.number(), v.word()))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(self.word())
            }
        }
    };
}
pub(super) use numbered;

/// Enums whose 0 is the default, and that grow: a value of another revision is ignored as its fields are.
macro_rules! open_enums {
    ($($(#[$doc:meta])* $name:ident { $(#[$zdoc:meta])* $zero:ident = 0, $($rest:tt)* })*) => {$(
        $crate::seed::json::numbered! { $(#[$doc])* $name { $(#[$zdoc])* $zero = 0, $($rest)* } }

        impl Default for $name {
            fn default() -> Self {
                Self::$zero
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let scalar = <$crate::seed::json::Scalar as serde::Deserialize>::deserialize(d)?;
                Ok(Self::find(&scalar).unwrap_or_default())
            }
        }

        $crate::seed::json::as_serde_reads! { [] $name, }
    )*};
}
pub(super) use open_enums;
