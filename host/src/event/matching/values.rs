//! Attributes as CEL sees them: looked up when they are asked for, and not copied.

use cel::ExecutionError;
use cel::common::traits::Indexer;
use cel::common::types::{CelBool, CelInt, CelString, MAP_TYPE, Type};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;

use super::timestamp::Instant;
use crate::event::{Event, SPECVERSION, Value};

/// The name that holds all attributes.
pub(super) const EVENT: &str = "event";

/// The variables of an expression: each attribute by its name, and `event`.
pub(super) struct Attributes<'e>(pub(super) &'e Event);

impl VariableResolver for Attributes<'_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        if name == EVENT { Some(CowVal::owned(Fields(self.0))) } else { value(self.0, name) }
    }
}

fn value<'v, 'b>(event: &'v Event, name: &str) -> Option<CowVal<'b, 'v>> {
    let text = |text: &'v str| Some(CowVal::owned(CelString::from(text)));
    match name {
        "id" => text(event.id()),
        "source" => text(event.source()),
        "specversion" => text(SPECVERSION),
        "type" => text(event.kind()),
        _ => match event.other(name)? {
            Value::String(other) => text(other),
            Value::Boolean(truth) => Some(CowVal::owned(CelBool::from(*truth))),
            Value::Integer(number) => Some(CowVal::owned(CelInt::from(i64::from(*number)))),
            Value::Time(time) => Some(CowVal::owned(Instant(time.at()))),
        },
    }
}

/// `event`: what `event.NAME`, `event["NAME"]` and `has(event.NAME)` look into.
#[derive(Clone, Copy, Debug)]
struct Fields<'e>(&'e Event);

impl Val for Fields<'_> {
    fn get_type(&self) -> &Type {
        Self::cel_type()
    }

    fn cel_type() -> &'static Type {
        &MAP_TYPE
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn into_indexer<'v>(self: Box<Self>) -> Option<Box<dyn Indexer + 'v>>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(*self)
    }
}

impl Indexer for Fields<'_> {
    fn get<'b, 'v>(&'b self, index: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let name = index.downcast_ref::<CelString<'_>>().map_or("", |name| name.inner());
        value(self.0, name).ok_or_else(|| ExecutionError::no_such_key(name))
    }

    fn steal<'v>(self: Box<Self>, index: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(index).map(CowVal::into_owned)
    }
}
