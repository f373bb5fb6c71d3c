//! How a column's values are written: every choice of the configuration meets a column's type here, once a schema, and
//! becomes a [`Style`]; the row path only matches on the value's own variant.
//!
//! Whatever a decoder hands over is written as what it is: a style never re-reads or guesses. What a chosen form cannot hold
//! (a timestamp of the year 294276 in nanoseconds) is an error that names the choice to change, never a wrong number.

use super::{
    datetime::{self, Fraction, SECOND},
    decimal::{Digits, shortest},
    json,
};
use crate::config::resolved::{BinaryMode, DecimalMode, Format, IntervalMode, MapMode, TimeMode, Values, ZeroDates};
use seachange_sdk::{Error, Nested, Result, Type, Value, Visitor, digits};

/// Which kind of date or time a column is: decides what infinity looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Temporal {
    Date,
    Timestamp,
    Instant,
}

/// The unit of a date or time written as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Milliseconds.
    Millis,
    /// Microseconds.
    Micros,
    /// Nanoseconds.
    Nanos,
}

/// How a decimal becomes Connect's `Decimal`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// The column's scale.
    Fixed(i32),
    /// Each value's own: `{"scale", "value"}`.
    Varying,
}

/// How the values of one column are written.
#[derive(Clone, Debug)]
pub struct Style {
    base: Values,
    decimal: DecimalMode,
    scale: Scale,
    time: TimeMode,
    temporal: Temporal,
    digits: u8,
    binary: BinaryMode,
    interval: IntervalMode,
    map: MapMode,
    zero_dates: ZeroDates,
    one_bit: bool,
    points: bool,
    element: Option<Box<Style>>,
}

/// Buffers that values are put together in, reused from row to row.
#[derive(Debug, Default)]
pub struct Scratch {
    bytes: Vec<u8>,
    limbs: Vec<u32>,
    text: String,
}

impl Style {
    /// The style for a column of this type.
    pub fn new(ty: &Type, format: &Format) -> Style {
        let (temporal, digits) = match ty {
            Type::Date => (Temporal::Date, 0),
            Type::TimestampTz(p) => (Temporal::Instant, *p),
            Type::Time(p) | Type::Timestamp(p) => (Temporal::Timestamp, *p),
            _ => (Temporal::Timestamp, 6),
        };
        Style {
            base: format.values,
            decimal: format.decimal,
            scale: match ty {
                Type::Decimal { scale, .. } => Scale::Fixed(*scale),
                Type::Money(digits) => Scale::Fixed(*digits as i32),
                _ => Scale::Varying,
            },
            time: format.time,
            temporal,
            digits,
            binary: format.binary,
            interval: format.interval,
            map: format.hstore,
            zero_dates: format.zero_dates,
            one_bit: *ty == Type::Bit1,
            points: *ty == Type::Geometry(true),
            element: match ty {
                Type::Array(element) => Some(Box::new(Style::new(element, format))),
                _ => None,
            },
        }
    }

    /// The unit of a time of day (`day`) or timestamp; `None` where it is a string.
    pub fn unit(mode: TimeMode, digits: u8, day: bool) -> Option<Unit> {
        Some(match mode {
            TimeMode::Iso | TimeMode::IsoString => return None,
            TimeMode::Connect => Unit::Millis,
            TimeMode::Micros => Unit::Micros,
            TimeMode::Nanos => Unit::Nanos,
            TimeMode::AdaptiveTimeMicros if day => Unit::Micros,
            TimeMode::Adaptive | TimeMode::AdaptiveTimeMicros => {
                if digits <= 3 {
                    Unit::Millis
                } else {
                    Unit::Micros
                }
            }
        })
    }

    /// What stands for a value of this type that the log does not carry, as JSON, under `debezium`.
    pub fn placeholder(ty: &Type, format: &Format) -> Vec<u8> {
        let text = &format.placeholder;
        let style = Style::new(ty, format);
        let mut out = Vec::new();
        match ty {
            Type::Bytes => style.bytes(&mut out, text.as_bytes()),
            Type::Bits(_) | Type::Decimal { .. } | Type::Money(_) if style.is_connect_bytes(ty) => {
                quoted(&mut out, |o| json::base64(o, text.as_bytes()));
            }
            Type::VarDecimal if format.decimal == DecimalMode::Precise => {
                out.extend_from_slice(b"{\"scale\":0,\"value\":");
                quoted(&mut out, |o| json::base64(o, text.as_bytes()));
                out.push(b'}');
            }
            Type::Map => {
                let mut object = b"{".to_vec();
                json::string(&mut object, text);
                object.push(b':');
                json::string(&mut object, text);
                object.push(b'}');
                match format.hstore {
                    MapMode::Object => out = object,
                    MapMode::Json => json::string(&mut out, &String::from_utf8_lossy(&object)),
                }
            }
            Type::Array(element) => {
                out.push(b'[');
                match **element {
                    Type::I16 | Type::I32 | Type::I64 => {
                        for (i, b) in text.bytes().enumerate() {
                            if i > 0 {
                                out.push(b',');
                            }
                            json::uint(&mut out, u64::from(b));
                        }
                    }
                    _ => out.extend_from_slice(&Style::placeholder(element, format)),
                }
                out.push(b']');
            }
            _ => json::string(&mut out, text),
        }
        out
    }

    /// Does Connect have this column as `bytes`?
    fn is_connect_bytes(&self, ty: &Type) -> bool {
        match ty {
            Type::Bits(_) => self.base == Values::Debezium,
            _ => self.decimal == DecimalMode::Precise,
        }
    }

    fn bytes(&self, out: &mut Vec<u8>, bytes: &[u8]) {
        quoted(out, |o| match self.binary {
            BinaryMode::Base64 => json::base64(o, bytes),
            BinaryMode::Base64UrlSafe => json::base64_url(o, bytes),
            BinaryMode::Hex => json::hex(o, bytes),
        });
    }

    /// Writes a value.
    #[inline]
    pub fn write(&self, out: &mut Vec<u8>, value: Value<'_>, scratch: &mut Scratch) -> Result<()> {
        match value {
            Value::Null => out.extend_from_slice(b"null"),
            Value::Bool(b) => json::boolean(out, b),
            Value::I64(n) => json::int(out, n),
            Value::U64(n) => json::uint(out, n),
            Value::F32(f) => json::f32(out, f),
            Value::F64(f) => json::f64(out, f),
            Value::Text(text) => json::string(out, &text),
            Value::Decimal(text) => return self.decimal(out, &text, scratch),
            Value::Unscaled(n, scale) => return self.unscaled(out, n, scale, scratch),
            Value::Bytes(bytes) => self.bytes(out, &bytes),
            Value::Bits(bits) => return self.bits(out, &bits, scratch),
            Value::Date(days) => return self.date(out, days),
            Value::Time(micros) => return self.time(out, micros),
            Value::TimeTz(micros, offset) => self.time_tz(out, micros, offset),
            Value::Timestamp(seconds, micros) => return self.timestamp(out, seconds, micros),
            Value::TimestampTz(seconds, micros) => self.instant(out, seconds, micros),
            Value::Infinity(positive) => self.infinity(out, positive),
            Value::Interval(months, days, micros) => return self.interval(out, months, days, micros),
            Value::Point(x, y) => self.point(out, x, y),
            Value::Nested(nested) => return self.nested(out, nested, scratch),
            // No calendar has it: exact as text, or nothing; never another date.
            Value::ZeroDate(text) if self.zero_dates == ZeroDates::Text => json::string(out, &text),
            Value::ZeroDate(_) => out.extend_from_slice(b"null"),
            Value::Geometry(srid, wkb) => self.geometry(out, srid, &wkb)?,
        }
        Ok(())
    }

    /// `{"wkb","srid"}`, and before them `x` and `y` for a column of points.
    fn geometry(&self, out: &mut Vec<u8>, srid: Option<u32>, wkb: &[u8]) -> Result<()> {
        out.push(b'{');
        if self.points {
            // Well-known binary of a point: byte order, type (4 bytes), two doubles.
            let double = |at: usize| -> Option<f64> {
                let bytes: [u8; 8] = wkb.get(at..at + 8)?.try_into().ok()?;
                Some(if wkb.first() == Some(&1) { f64::from_le_bytes(bytes) } else { f64::from_be_bytes(bytes) })
            };
            let (Some(x), Some(y)) = (double(5), double(13)) else {
                return Err(Error::value("a point whose binary form is too short"));
            };
            out.extend_from_slice(b"\"x\":");
            json::f64(out, x);
            out.extend_from_slice(b",\"y\":");
            json::f64(out, y);
            out.push(b',');
        }
        out.extend_from_slice(b"\"wkb\":");
        quoted(out, |o| json::base64(o, wkb));
        out.extend_from_slice(b",\"srid\":");
        match srid {
            Some(n) => json::uint(out, n.into()),
            None => out.extend_from_slice(b"null"),
        }
        out.push(b'}');
        Ok(())
    }

    /// A number that has the column's scale is written as it is; else its digits decide.
    fn unscaled(&self, out: &mut Vec<u8>, n: i128, scale: u8, scratch: &mut Scratch) -> Result<()> {
        if self.decimal == DecimalMode::Precise && self.scale == Scale::Fixed(i32::from(scale)) {
            quoted(out, |o| json::base64(o, shortest(n, &mut [0; 16])));
            return Ok(());
        }
        let mut text = std::mem::take(&mut scratch.text);
        text.clear();
        digits(n, scale, &mut text);
        let done = if self.decimal == DecimalMode::String {
            quoted(out, |o| o.extend_from_slice(text.as_bytes()));
            Ok(())
        } else {
            self.decimal(out, &text, scratch)
        };
        scratch.text = text;
        done
    }

    fn decimal(&self, out: &mut Vec<u8>, text: &str, scratch: &mut Scratch) -> Result<()> {
        let Some(digits) = Digits::parse(text)? else {
            // Debezium's string mode prints the names of its own constants; the drop-in keeps to them.
            let name = match (self.base, self.decimal, text) {
                (Values::Debezium, DecimalMode::String, "NaN") => "NAN",
                (Values::Debezium, DecimalMode::String, "Infinity") => "POSITIVE_INFINITY",
                (Values::Debezium, DecimalMode::String, _) => "NEGATIVE_INFINITY",
                _ => text,
            };
            json::string(out, name);
            return Ok(());
        };
        match (self.decimal, self.scale) {
            (DecimalMode::String, _) => quoted(out, |o| o.extend_from_slice(text.as_bytes())),
            (DecimalMode::Double, _) => {
                json::f64(out, text.parse::<f64>().map_err(|e| Error::value("a decimal that is no number").cause(e))?);
            }
            (DecimalMode::Precise, Scale::Fixed(scale)) => {
                scratch.bytes.clear();
                digits.unscaled(scale, &mut scratch.limbs, &mut scratch.bytes)?;
                quoted(out, |o| json::base64(o, &scratch.bytes));
            }
            (DecimalMode::Precise, Scale::Varying) => {
                let digits = digits.stripped();
                scratch.bytes.clear();
                digits.unscaled(digits.scale() as i32, &mut scratch.limbs, &mut scratch.bytes)?;
                out.extend_from_slice(b"{\"scale\":");
                json::uint(out, digits.scale() as u64);
                out.extend_from_slice(b",\"value\":");
                quoted(out, |o| json::base64(o, &scratch.bytes));
                out.push(b'}');
            }
        }
        Ok(())
    }

    fn bits(&self, out: &mut Vec<u8>, bits: &str, scratch: &mut Scratch) -> Result<()> {
        if bits.bytes().any(|b| b != b'0' && b != b'1') {
            return Err(Error::value("a bit string that is not zeros and ones"));
        }
        match (self.one_bit, bits, self.base) {
            (true, "0", _) => json::boolean(out, false),
            (true, "1", _) => json::boolean(out, true),
            (_, _, Values::Plain) => json::string(out, bits),
            (_, _, Values::Debezium) => {
                // Little-endian bytes, the last bit of the string is the lowest bit of the first byte.
                scratch.bytes.clear();
                scratch.bytes.extend(bits.as_bytes().rchunks(8).map(|c| c.iter().fold(0, |n, b| n << 1 | (b & 1))));
                quoted(out, |o| json::base64(o, &scratch.bytes));
            }
        }
        Ok(())
    }

    fn date(&self, out: &mut Vec<u8>, days: i64) -> Result<()> {
        match self.time {
            TimeMode::Iso => quoted(out, |o| datetime::date(o, days)),
            TimeMode::IsoString => quoted(out, |o| {
                datetime::date(o, days);
                o.push(b'Z');
            }),
            _ => json::int(out, i32::try_from(days).map_err(|_| too_far("date", "32-bit days"))?.into()),
        }
        Ok(())
    }

    fn time(&self, out: &mut Vec<u8>, micros: i64) -> Result<()> {
        match Style::unit(self.time, self.digits, true) {
            None => quoted(out, |o| {
                datetime::time(o, micros, Fraction::Needed);
                if self.time == TimeMode::IsoString {
                    o.push(b'Z');
                }
            }),
            Some(Unit::Millis) => json::int(out, micros.div_euclid(1000)),
            Some(Unit::Micros) => json::int(out, micros),
            Some(Unit::Nanos) => {
                json::int(out, micros.checked_mul(1000).ok_or_else(|| too_far("time", "nanoseconds"))?);
            }
        }
        Ok(())
    }

    fn time_tz(&self, out: &mut Vec<u8>, micros: i64, offset: i32) {
        quoted(out, |o| {
            if self.time == TimeMode::Iso {
                datetime::time(o, micros, Fraction::Needed);
                datetime::offset(o, offset);
            } else {
                datetime::time(o, datetime::time_in_utc(micros, offset), Fraction::Needed);
                o.push(b'Z');
            }
        });
    }

    fn timestamp(&self, out: &mut Vec<u8>, seconds: i64, micros: u32) -> Result<()> {
        let whole = |per_second: i64, rest: i64, unit| {
            let n = seconds.checked_mul(per_second).and_then(|n| n.checked_add(rest));
            n.ok_or_else(|| too_far("timestamp", unit))
        };
        match Style::unit(self.time, self.digits, false) {
            None => quoted(out, |o| {
                datetime::timestamp(o, seconds, micros, Fraction::Needed);
                if self.time == TimeMode::IsoString {
                    o.push(b'Z');
                }
            }),
            Some(Unit::Millis) => json::int(out, whole(1000, i64::from(micros / 1000), "milliseconds")?),
            Some(Unit::Micros) => json::int(out, whole(SECOND, i64::from(micros), "microseconds")?),
            Some(Unit::Nanos) => json::int(out, whole(1000 * SECOND, i64::from(micros) * 1000, "nanoseconds")?),
        }
        Ok(())
    }

    fn instant(&self, out: &mut Vec<u8>, seconds: i64, micros: u32) {
        let how = if self.time == TimeMode::Iso { Fraction::Needed } else { Fraction::Exactly(self.digits) };
        quoted(out, |o| {
            datetime::timestamp(o, seconds, micros, how);
            o.push(b'Z');
        });
    }

    fn infinity(&self, out: &mut Vec<u8>, positive: bool) {
        // Debezium's own documented numbers for timestamps; for dates it has none that is right, so the ends of the type.
        const PLUS: i64 = 9_223_372_036_825_200_000;
        const MINUS: i64 = -9_223_372_036_832_400_000;
        let text = matches!(self.time, TimeMode::Iso | TimeMode::IsoString) || self.temporal == Temporal::Instant;
        if text {
            out.extend_from_slice(if positive { b"\"infinity\"" } else { b"\"-infinity\"" });
            return;
        }
        let micros = if positive { PLUS } else { MINUS };
        let n = match (self.temporal, Style::unit(self.time, self.digits, false)) {
            (Temporal::Date, _) => i64::from(if positive { i32::MAX } else { i32::MIN }),
            (_, Some(Unit::Millis)) => micros / 1000,
            (_, Some(Unit::Nanos)) if positive => i64::MAX,
            (_, Some(Unit::Nanos)) => i64::MIN,
            _ => micros,
        };
        json::int(out, n);
    }

    fn interval(&self, out: &mut Vec<u8>, months: i32, days: i32, micros: i64) -> Result<()> {
        match self.interval {
            IntervalMode::Iso => quoted(out, |o| datetime::interval(o, months, days, micros)),
            IntervalMode::String => quoted(out, |o| datetime::interval_full(o, months, days, micros)),
            IntervalMode::Numeric => {
                let n = datetime::interval_micros(months, days, micros).ok_or_else(|| {
                    Error::value("an interval does not fit 64-bit microseconds")
                        .fix("set `interval = \"iso\"` or `\"string\"` for the pipeline")
                })?;
                json::int(out, n);
            }
        }
        Ok(())
    }

    fn point(&self, out: &mut Vec<u8>, x: f64, y: f64) {
        out.extend_from_slice(b"{\"x\":");
        json::f64(out, x);
        out.extend_from_slice(b",\"y\":");
        json::f64(out, y);
        if self.base == Values::Debezium {
            // Well-known binary: little-endian, type 1 (point), the two doubles.
            let mut wkb = [0u8; 21];
            wkb[0] = 1;
            wkb[1] = 1;
            wkb[5..13].copy_from_slice(&x.to_le_bytes());
            wkb[13..21].copy_from_slice(&y.to_le_bytes());
            out.extend_from_slice(b",\"wkb\":");
            quoted(out, |o| json::base64(o, &wkb));
            out.extend_from_slice(b",\"srid\":null");
        }
        out.push(b'}');
    }

    fn nested(&self, out: &mut Vec<u8>, nested: Nested<'_>, scratch: &mut Scratch) -> Result<()> {
        let element = self.element.as_deref().unwrap_or(self);
        let is_map = self.element.is_none();
        if is_map && self.map == MapMode::Json {
            // The object is put together apart, then written as a string.
            let mut object = std::mem::take(&mut scratch.bytes);
            object.clear();
            let walked = nested.walk(&mut Writer { out: &mut object, style: element, scratch, comma: false });
            let done = walked.and_then(|()| match std::str::from_utf8(&object) {
                Ok(text) => {
                    json::string(out, text);
                    Ok(())
                }
                Err(e) => Err(Error::bug("an object that is not UTF-8").cause(e)),
            });
            scratch.bytes = object;
            return done;
        }
        nested.walk(&mut Writer { out, style: element, scratch, comma: false })
    }
}

fn too_far(what: &str, unit: &str) -> Error {
    Error::value(format!("a {what} does not fit {unit}"))
        .fix("choose another `time` for the pipeline: `iso` and `isostring` hold every date")
}

/// Puts quotes around what is written.
#[inline]
fn quoted(out: &mut Vec<u8>, f: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'"');
    f(out);
    out.push(b'"');
}

/// Writes lists and maps as they are walked.
struct Writer<'a> {
    out: &'a mut Vec<u8>,
    style: &'a Style,
    scratch: &'a mut Scratch,
    comma: bool,
}

impl Writer<'_> {
    #[inline]
    fn separate(&mut self) {
        if std::mem::replace(&mut self.comma, true) {
            self.out.push(b',');
        }
    }
    fn open(&mut self, bracket: u8) {
        self.separate();
        self.out.push(bracket);
        self.comma = false;
    }
    fn close(&mut self, bracket: u8) {
        self.out.push(bracket);
        self.comma = true;
    }
}

impl Visitor for Writer<'_> {
    fn begin_list(&mut self) -> Result<()> {
        self.open(b'[');
        Ok(())
    }
    fn end_list(&mut self) -> Result<()> {
        self.close(b']');
        Ok(())
    }
    fn begin_map(&mut self) -> Result<()> {
        self.open(b'{');
        Ok(())
    }
    fn end_map(&mut self) -> Result<()> {
        self.close(b'}');
        Ok(())
    }
    fn key(&mut self, key: &str) -> Result<()> {
        self.separate();
        json::string(self.out, key);
        self.out.push(b':');
        self.comma = false;
        Ok(())
    }
    fn value(&mut self, value: Value<'_>) -> Result<()> {
        self.separate();
        self.style.write(self.out, value, self.scratch)
    }
}
