//! From tree to raw twin: a serde reader that goes on after a mistake.
//!
//! Serde stops at its first error. This reader reports each error where it happens, with line and key, and a
//! [`Field`] turns it into [`Field::Broken`], so that its neighbours are read as well. Unknown keys never reach
//! serde: they are reported and left out. The invariant that makes this sound: **an [`Error`] was reported before it
//! leaves a [`Reader`]**.
//!
//! Messages are made here, because here it is known how a value was written: text that came from a variable or a
//! file is never quoted.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::StrDeserializer;
use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, Visitor};

use super::problem::{Findings, Place, cut, nearest};
use super::tree::{Entry, Node, Value, read_number};

/// What serde sees of one value.
#[derive(Clone, Copy)]
pub(super) struct Reader<'r> {
    pub(super) node: &'r Node,
    /// The line of its key, or its own in a list.
    pub(super) line: usize,
    pub(super) place: &'r Place<'r>,
    pub(super) findings: &'r Findings,
}

/// Why a value could not be read.
#[derive(Debug)]
pub(super) enum Error {
    /// It was reported.
    Reported,
    /// In these words, without the value.
    Words(String),
    /// In these words, which are to be preceded by what was written.
    Quoting(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reported => f.write_str("reported"),
            Self::Words(words) | Self::Quoting(words) => f.write_str(words),
        }
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Words(message.to_string())
    }

    fn invalid_type(_unexpected: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::Quoting(format!("write {expected}"))
    }

    fn invalid_value(_unexpected: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::Quoting(expected.to_string())
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let meant = nearest(variant, expected.iter().copied());
        let listed = expected.join(", ");
        Self::Quoting(match meant {
            Some(meant) => format!("did you mean `{meant}`? It is one of {listed}"),
            None => format!("write one of {listed}"),
        })
    }
}

impl<'r> Reader<'r> {
    /// Reads a whole value. `None` when it cannot be; why was reported.
    pub(super) fn read<T: for<'de> Deserialize<'de>>(self) -> Option<T> {
        T::deserialize(self).ok()
    }

    fn fail<T>(self, error: Error) -> Result<T, Error> {
        let message = match error {
            Error::Reported => return Err(Error::Reported),
            Error::Words(words) => words,
            Error::Quoting(words) => match self.quotable() {
                Some(written) => format!("`{}`: {words}", cut(written)),
                None => words,
            },
        };
        self.findings.report(Some(self.line), self.place, message);
        Err(Error::Reported)
    }

    fn wrong<T>(self, expected: &str) -> Result<T, Error> {
        if matches!(self.node.value, Value::Broken) {
            return Err(Error::Reported);
        }
        self.fail(Error::Words(format!("is {}: {expected}", self.kind())))
    }

    /// How it is written, unless there is nothing to quote.
    fn quotable(self) -> Option<&'r str> {
        (!self.node.written.is_empty()).then_some(self.node.written.as_str())
    }

    fn kind(self) -> &'static str {
        match &self.node.value {
            Value::Null | Value::Broken => "empty",
            Value::Bool(_) => "true or false",
            Value::Unsigned(_) | Value::Negative(_) | Value::Float(_) => "a number",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Section(_) => "a section of keys",
        }
    }

    fn number<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let read = match &self.node.value {
            Value::Text(text) if self.node.secret => read_number(text),
            _ => None,
        };
        match read.as_ref().unwrap_or(&self.node.value) {
            Value::Unsigned(number) => visitor.visit_u64(*number),
            Value::Negative(number) => visitor.visit_i64(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            // Where a word may stand in a number's place, the visitor knows it, or says which one may.
            Value::Text(text) if read_number(text).is_none() => match visitor.visit_str(text) {
                Err(Error::Quoting(_)) => return self.wrong("write a number, without quotes"),
                read => read,
            },
            _ => return self.wrong("write a number, without quotes"),
        }
        .or_else(|error| self.fail(error))
    }

    fn section<'de, V: Visitor<'de>>(self, known: Option<&[&str]>, visitor: V) -> Result<V::Value, Error> {
        let Value::Section(entries) = &self.node.value else {
            return self.wrong("write a section of `key: value` lines, or remove the key");
        };
        if let Some(known) = known {
            for entry in entries.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
                let message = match nearest(&entry.key, known.iter().copied()) {
                    Some(meant) => format!("unknown key: did you mean `{meant}`?"),
                    None => format!("unknown key: write one of {}", known.join(", ")),
                };
                self.findings.report(Some(entry.line), self.place.key(&entry.key), message);
            }
        }
        let access = SectionAccess { reader: self, known, entries: entries.iter(), value: None };
        visitor.visit_map(access).or_else(|error| self.fail(error))
    }
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Unsigned(_) | Value::Negative(_) => return self.number(visitor),
            Value::Float(number) if !number.is_finite() => {
                return self.fail(Error::Quoting("write a finite number".to_owned()));
            }
            Value::Float(_) => return self.number(visitor),
            Value::Text(text) => visitor.visit_str(text),
            Value::List(_) => return self.deserialize_seq(visitor),
            Value::Section(_) => return self.section(None, visitor),
            Value::Broken => Err(Error::Reported),
        }
        .or_else(|error| self.fail(error))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Text(text) if self.node.secret && text == "true" => visitor.visit_bool(true),
            Value::Text(text) if self.node.secret && text == "false" => visitor.visit_bool(false),
            Value::Broken => Err(Error::Reported),
            _ => self.fail(Error::Quoting("write true or false".to_owned())),
        }
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.number(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.number(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Text(text) => visitor.visit_str(text).or_else(|error| self.fail(error)),
            Value::Null => self.wrong("write a value, or remove the key"),
            Value::Bool(_) | Value::Unsigned(_) | Value::Negative(_) | Value::Float(_) => {
                self.wrong("put it in quotes to make it text")
            }
            _ => self.wrong("write text"),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Value::List(items) = &self.node.value else { return self.wrong("write a list, such as [first, second]") };
        let access = ListAccess { reader: self, items: items.iter().enumerate() };
        visitor.visit_seq(access).or_else(|error| self.fail(error))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.section(None, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.section(Some(fields), visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let variant = match &self.node.value {
            Value::Broken => return Err(Error::Reported),
            Value::Section(_) if name == SHORTHAND => "full",
            _ if name == SHORTHAND => "short",
            Value::Text(text) => text.as_str(),
            _ => return self.wrong("write one of the words allowed here"),
        };
        visitor.visit_enum(VariantAccess { reader: self, variant }).or_else(|error| self.fail(error))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u128 f32 char bytes byte_buf option unit unit_struct tuple tuple_struct
        identifier
    }
}

struct SectionAccess<'r> {
    reader: Reader<'r>,
    known: Option<&'r [&'r str]>,
    entries: std::slice::Iter<'r, Entry>,
    value: Option<&'r Entry>,
}

impl<'de> de::MapAccess<'de> for SectionAccess<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let known = self.known;
        let Some(entry) = self.entries.find(|entry| known.is_none_or(|known| known.contains(&entry.key.as_str())))
        else {
            return Ok(None);
        };
        self.value = Some(entry);
        seed.deserialize(StrDeserializer::new(&entry.key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let Some(entry) = self.value.take() else { return Err(Error::Words("a value without a key".to_owned())) };
        let place = self.reader.place.key(&entry.key);
        seed.deserialize(Reader { node: &entry.node, line: entry.line, place: &place, findings: self.reader.findings })
    }
}

struct ListAccess<'r> {
    reader: Reader<'r>,
    items: std::iter::Enumerate<std::slice::Iter<'r, std::sync::Arc<Node>>>,
}

impl<'de> de::SeqAccess<'de> for ListAccess<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some((index, node)) = self.items.next() else { return Ok(None) };
        let place = self.reader.place.index(index);
        seed.deserialize(Reader { node, line: node.line, place: &place, findings: self.reader.findings }).map(Some)
    }
}

struct VariantAccess<'r> {
    reader: Reader<'r>,
    variant: &'r str,
}

impl<'de, 'r> de::EnumAccess<'de> for VariantAccess<'r> {
    type Error = Error;
    type Variant = Reader<'r>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self::Variant), Error> {
        Ok((seed.deserialize(StrDeserializer::new(self.variant))?, self.reader))
    }
}

impl<'de> de::VariantAccess<'de> for Reader<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        self.section(Some(fields), visitor)
    }
}

/// A key's value: not given, given, or given wrongly (which was reported, so nobody complains of its absence).
#[derive(Default)]
pub(crate) enum Field<T> {
    #[default]
    Absent,
    Given(T),
    Broken,
}

impl<T> Field<T> {
    /// What it holds, made into something else.
    pub(crate) fn map<U>(self, made: impl FnOnce(T) -> U) -> Field<U> {
        match self {
            Self::Given(value) => Field::Given(made(value)),
            Self::Absent => Field::Absent,
            Self::Broken => Field::Broken,
        }
    }

    /// The value, if there is a right one.
    pub(crate) fn given(self) -> Option<T> {
        match self {
            Self::Given(value) => Some(value),
            Self::Absent | Self::Broken => None,
        }
    }

    /// The same, borrowed.
    pub(crate) const fn as_given(&self) -> Option<&T> {
        match self {
            Self::Given(value) => Some(value),
            Self::Absent | Self::Broken => None,
        }
    }

    /// Whether the key is in the file, with whatever value.
    pub(crate) const fn is_present(&self) -> bool {
        !matches!(self, Self::Absent)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The reader has reported the error, see the invariant above.
        Ok(T::deserialize(deserializer).map_or(Self::Broken, Self::Given))
    }
}

/// The name by which the reader knows a [`Shorthand`].
const SHORTHAND: &str = "$shorthand";

/// A section, or a short form that says the most important of it.
#[derive(serde::Deserialize)]
#[serde(rename = "$shorthand")]
pub(crate) enum Shorthand<S, F> {
    #[serde(rename = "short")]
    Short(S),
    #[serde(rename = "full")]
    Full(F),
}

/// A section whose keys are names of the user's, in the order of the file.
pub(crate) struct Named<T>(pub(crate) Vec<(String, Field<T>)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = Named<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a section of `name: value` lines")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Named(entries))
            }
        }

        deserializer.deserialize_map(Entries(PhantomData))
    }
}
