//! `x-death`: where and why a message was dead-lettered before, as JSON that a policy can read.

use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Map, Number, Value};

use super::fields::{MOST_DEATHS, text};

/// How deep what is nested in a header is followed; deeper is `null`.
pub(super) const DEPTH: usize = 8;

/// The entries, newest first as RabbitMQ keeps them (one for each queue and reason, with a `count`), at most
/// [`MOST_DEATHS`].
pub(super) fn deaths(value: &AMQPValue) -> Value {
    match value {
        AMQPValue::FieldArray(entries) => {
            Value::Array(entries.as_slice().iter().take(MOST_DEATHS).map(|entry| json(entry, DEPTH)).collect())
        }
        other => json(other, DEPTH),
    }
}

/// A value as JSON: times are seconds since the epoch, bytes that are not UTF-8 are replaced one by one.
pub(super) fn json(value: &AMQPValue, depth: usize) -> Value {
    match value {
        AMQPValue::FieldArray(values) if depth > 0 => {
            Value::Array(values.as_slice().iter().map(|value| json(value, depth - 1)).collect())
        }
        AMQPValue::FieldTable(table) if depth > 0 => object(table, depth - 1),
        AMQPValue::FieldArray(_) | AMQPValue::FieldTable(_) | AMQPValue::Void => Value::Null,
        AMQPValue::Boolean(value) => Value::Bool(*value),
        AMQPValue::ShortShortInt(value) => (*value).into(),
        AMQPValue::ShortShortUInt(value) => (*value).into(),
        AMQPValue::ShortInt(value) => (*value).into(),
        AMQPValue::ShortUInt(value) => (*value).into(),
        AMQPValue::LongInt(value) => (*value).into(),
        AMQPValue::LongUInt(value) => (*value).into(),
        AMQPValue::LongLongInt(value) => (*value).into(),
        AMQPValue::Timestamp(value) => (*value).into(),
        AMQPValue::Float(value) => Number::from_f64((*value).into()).map_or(Value::Null, Value::Number),
        AMQPValue::Double(value) => Number::from_f64(*value).map_or(Value::Null, Value::Number),
        AMQPValue::DecimalValue(_) | AMQPValue::ShortString(_) | AMQPValue::LongString(_) | AMQPValue::ByteArray(_) => {
            Value::String(text(value).unwrap_or_default())
        }
    }
}

fn object(table: &FieldTable, depth: usize) -> Value {
    let entries = table.inner().iter().map(|(name, value)| (name.as_str().to_owned(), json(value, depth)));
    Value::Object(entries.collect::<Map<_, _>>())
}
