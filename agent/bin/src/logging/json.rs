//! One JSON object per line.

use std::fmt;
use std::io::Write;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::Sink;

/// How the fixed parts are called.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names {
    time: &'static str,
    level: &'static str,
    message: &'static str,
    upper: bool,
}

pub(super) const PLAIN: Names = Names {
    time: "ts",
    level: "level",
    message: "msg",
    upper: true,
};

pub(super) const STACKDRIVER: Names = Names {
    time: "timestamp",
    level: "severity",
    message: "message",
    upper: true,
};

pub(super) struct JsonLayer {
    sink: Sink,
    names: Names,
}

impl JsonLayer {
    pub(super) fn new(sink: Sink, names: Names) -> Self {
        Self { sink, names }
    }
}

impl<S: Subscriber> Layer<S> for JsonLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields {
            message: String::new(),
            others: Map::new(),
        };
        event.record(&mut fields);
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            Level::DEBUG | Level::TRACE => "debug",
        };
        let level = if self.names.upper {
            level.to_uppercase()
        } else {
            level.to_owned()
        };
        let mut line = Map::new();
        line.insert(
            self.names.time.to_owned(),
            jiff::Timestamp::now().to_string().into(),
        );
        line.insert(self.names.level.to_owned(), level.into());
        line.insert(self.names.message.to_owned(), fields.message.into());
        line.insert("fields".to_owned(), Value::Object(fields.others));
        let mut text = Value::Object(line).to_string();
        text.push('\n');
        let _ = self.sink.clone().write_all(text.as_bytes());
    }
}

struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" {
            self.message = text;
        } else {
            self.others.insert(field.name().to_owned(), text.into());
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.others.insert(field.name().to_owned(), value.into());
        }
    }
}
