//! Timestamps in CEL: read from text, compared, and taken apart in UTC.
//!
//! The `cel` crate has its own, on a second library of dates that brings every time zone of the world with it. An
//! expression has no clock to compare with, so that what is left of them is this.

use std::any::Any;
use std::cmp::Ordering;

use cel::common::traits::Comparer;
use cel::common::types::{CelInt, CelString, STRING_TYPE, TIMESTAMP_TYPE, Type};
use cel::common::value::{CowVal, StaticVal, Val};
use cel::{DeclarationError, Env, ExecutionError};
use jiff::Zoned;
use jiff::tz::TimeZone;

use crate::event::attributes;

/// A point in time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Instant(pub(super) jiff::Timestamp);

impl Val for Instant {
    fn get_type(&self) -> &Type {
        Self::cel_type()
    }

    fn cel_type() -> &'static Type {
        &TIMESTAMP_TYPE
    }

    fn as_comparer(&self) -> Option<&dyn Comparer> {
        Some(self)
    }

    fn equals(&self, other: &dyn Val) -> bool {
        other.downcast_ref::<Self>().is_some_and(|other| self.0 == other.0)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(*self)
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Instant {}

impl Comparer for Instant {
    fn compare(&self, other: &dyn Val) -> Result<Ordering, ExecutionError> {
        let other = other.downcast_ref::<Self>().ok_or_else(|| {
            let types = vec!["timestamp".to_owned(), other.get_type().name().to_owned()];
            ExecutionError::no_such_overload("_<_", types)
        })?;
        Ok(self.0.cmp(&other.0))
    }
}

/// The functions that take a timestamp apart, in UTC, counted as CEL counts: months, weekdays (from Sunday) and days
/// of the year from 0; days of the month from 0 by `getDayOfMonth`, and from 1 by `getDate`.
pub(super) const PARTS: [&str; 10] = [
    "getFullYear",
    "getMonth",
    "getDayOfYear",
    "getDayOfMonth",
    "getDate",
    "getDayOfWeek",
    "getHours",
    "getMinutes",
    "getSeconds",
    "getMilliseconds",
];

/// Declares `timestamp`, `string` of one, and [`PARTS`].
pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    type Function = for<'b, 'v> fn(Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError>;
    let parts: [Function; 10] = [
        |args| part(&args, |at| at.year().into()),
        |args| part(&args, |at| i64::from(at.month()) - 1),
        |args| part(&args, |at| i64::from(at.day_of_year()) - 1),
        |args| part(&args, |at| i64::from(at.day()) - 1),
        |args| part(&args, |at| at.day().into()),
        |args| part(&args, |at| at.weekday().to_sunday_zero_offset().into()),
        |args| part(&args, |at| at.hour().into()),
        |args| part(&args, |at| at.minute().into()),
        |args| part(&args, |at| at.second().into()),
        |args| part(&args, |at| at.millisecond().into()),
    ];
    for (name, part) in PARTS.into_iter().zip(parts) {
        env.add_member_overload(name, &format!("timestamp_{name}"), TIMESTAMP_TYPE, vec![], part)?;
    }
    env.add_overload("timestamp", "timestamp_of_string", vec![STRING_TYPE], from_text)?;
    env.add_overload("string", "string_of_timestamp", vec![TIMESTAMP_TYPE], to_text)
}

fn from_text<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let text = args.first().and_then(|text| text.downcast_ref::<CelString<'_>>());
    let at = text.and_then(|text| attributes::timestamp(text.inner()));
    let at = at.ok_or_else(|| ExecutionError::function_error("timestamp", "no date-time of RFC 3339"))?;
    Ok(CowVal::owned(Instant(at)))
}

fn to_text<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    Ok(CowVal::owned(CelString::from(instant(&args)?.0.to_string())))
}

fn part<'b, 'v>(args: &[CowVal<'b, 'v>], part: fn(&Zoned) -> i64) -> Result<CowVal<'b, 'v>, ExecutionError> {
    Ok(CowVal::owned(CelInt::from(part(&instant(args)?.0.to_zoned(TimeZone::UTC)))))
}

fn instant(args: &[CowVal<'_, '_>]) -> Result<Instant, ExecutionError> {
    let instant = args.first().and_then(|target| target.downcast_ref::<Instant>());
    instant.copied().ok_or_else(ExecutionError::missing_argument_or_target)
}
