//! One canonical text for a value, made twice: from what a decoder said, and by the server without its output function
//! for the type.

use seachange_sdk::{Column, Decoder, Error, Result, Type, Value, Visitor};
use std::fmt::Write as _;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut s, b| {
        write!(s, "{b:02x}").unwrap();
        s
    })
}

/// SQL for the canonical text of `e`, which is NULL for NULL.
pub fn sql(ty: &Type, e: &str) -> String {
    match ty {
        Type::Bool => format!("({e})::int::text"),
        Type::I16 | Type::I32 | Type::I64 => format!("({e})::int8::numeric::text"),
        Type::F32 => format!("encode(float4send({e}), 'hex')"),
        Type::F64 => format!("encode(float8send({e}), 'hex')"),
        // Arithmetic keeps digits and scale.
        Type::Decimal { .. } | Type::VarDecimal => format!("(({e})::numeric + 0)::text"),
        Type::Money(_) => format!("({e})::numeric::text"),
        Type::Bytes => format!("encode({e}, 'hex')"),
        Type::Bit1 => format!("get_bit({e}, 0)::text"),
        Type::Bits(_) => format!(
            "(SELECT coalesce(string_agg(get_bit({e}, i)::text, '' ORDER BY i), '') FROM generate_series(0, length({e}) - 1) i \
             HAVING ({e}) IS NOT NULL)"
        ),
        Type::Date => format!(
            "CASE WHEN isfinite({e}) THEN (({e}) - date '1970-01-01')::text ELSE \
             CASE WHEN ({e}) > 'now' THEN 'inf' WHEN ({e}) < 'now' THEN '-inf' END END"
        ),
        Type::Time(_) => clock(e),
        Type::TimeTz => format!("{} || '@' || EXTRACT(timezone FROM {e})::int8", clock(e)),
        Type::Timestamp(_) | Type::TimestampTz(_) => format!(
            "CASE WHEN isfinite({e}) THEN EXTRACT(epoch FROM date_trunc('second', {e}))::numeric::int8 || '.' || \
             (EXTRACT(microseconds FROM {e})::int8 % 1000000) ELSE \
             CASE WHEN ({e}) > 'now' THEN 'inf' WHEN ({e}) < 'now' THEN '-inf' END END"
        ),
        Type::Interval => format!(
            "CASE WHEN isfinite({e}) THEN (EXTRACT(year FROM {e}) * 12 + EXTRACT(month FROM {e}))::int8 || '/' || EXTRACT(day FROM {e})::int8 \
             || '/' || (EXTRACT(hour FROM {e})::int8::numeric * 3600000000 + EXTRACT(minute FROM {e})::int8 * 60000000 + \
             EXTRACT(microseconds FROM {e})::int8) ELSE CASE WHEN ({e}) > '0' THEN 'inf' WHEN ({e}) < '0' THEN '-inf' END END"
        ),
        Type::Point => format!("encode(float8send(({e})[0]) || float8send(({e})[1]), 'hex')"),
        Type::Map => format!(
            "(SELECT '{{' || coalesce(string_agg(encode(convert_to(x.key, 'UTF8'), 'hex') || '=' || \
             coalesce(encode(convert_to(x.value, 'UTF8'), 'hex'), '~'), ',' ORDER BY encode(convert_to(x.key, 'UTF8'), 'hex')), '') \
             || '}}' FROM public.each({e}) x HAVING ({e}) IS NOT NULL)"
        ),
        Type::Array(inner) => {
            // Names of its own at every depth: an inner `u` would hide the outer one.
            let u = format!("u{}", e.len());
            format!(
                "(SELECT coalesce(array_length({e}, 1), 0) || 'x' || coalesce(array_length({e}, 2), 0) || ':' || \
                 coalesce(string_agg(coalesce({}, '~'), ',' ORDER BY {u}.o), '') FROM \
                 (SELECT x.e, row_number() OVER () AS o FROM (SELECT unnest({e}) AS e) x) {u} \
                 HAVING ({e}) IS NOT NULL)",
                sql(inner, &format!("{u}.e"))
            )
        }
        // What is text is its text; format() keeps the blanks that a cast of char(n) would strip.
        _ => format!("CASE WHEN ({e}) IS NOT NULL THEN encode(convert_to(format('%s', {e}), 'UTF8'), 'hex') END"),
    }
}

fn clock(e: &str) -> String {
    format!(
        "(EXTRACT(hour FROM {e})::int8 * 3600000000 + EXTRACT(minute FROM {e})::int8 * 60000000 + \
         EXTRACT(microseconds FROM {e})::int8)::text"
    )
}

/// SQL for a column.
pub fn column(c: &Column) -> String {
    let quoted = format!("t.\"{}\"", c.name.replace('"', "\"\""));
    // A row of NULLs is NULL to IS NULL; a composite value is not.
    match &c.ty {
        Type::Other => format!(
            "CASE WHEN num_nulls({quoted}) = 0 THEN encode(convert_to(format('%s', {quoted}), 'UTF8'), 'hex') END"
        ),
        ty => sql(ty, &quoted),
    }
}

/// The canonical text of a decoded cell.
pub fn decoded(decoder: &Decoder, bytes: &[u8]) -> Result<String> {
    value(decoder.value(bytes)?)
}

fn value(v: Value<'_>) -> Result<String> {
    Ok(match v {
        Value::Null => "~".into(),
        Value::Bool(b) => i32::from(b).to_string(),
        Value::I64(n) => n.to_string(),
        Value::U64(n) => n.to_string(),
        Value::F32(x) => hex(&if x.is_nan() { f32::NAN } else { x }.to_be_bytes()),
        Value::F64(x) => hex(&if x.is_nan() { f64::NAN } else { x }.to_be_bytes()),
        Value::Decimal(d) => d.into_owned(),
        Value::Unscaled(n, scale) => {
            let mut text = String::new();
            seachange_sdk::digits(n, scale, &mut text);
            text
        }
        Value::Text(t) => hex(t.as_bytes()),
        Value::Bytes(b) => hex(&b),
        Value::Bits(b) => b.into_owned(),
        Value::Date(d) => d.to_string(),
        Value::Time(t) => t.to_string(),
        Value::TimeTz(t, o) => format!("{t}@{o}"),
        Value::Timestamp(s, u) | Value::TimestampTz(s, u) => format!("{s}.{u}"),
        Value::Infinity(true) => "inf".into(),
        Value::Infinity(false) => "-inf".into(),
        Value::Interval(m, d, u) => format!("{m}/{d}/{u}"),
        Value::Point(x, y) => hex(&x.to_be_bytes()) + &hex(&y.to_be_bytes()),
        Value::ZeroDate(_) | Value::Geometry(..) => return Err(Error::value("no type of PostgreSQL has this")),
        Value::Nested(n) => {
            let mut seen = Seen::default();
            n.walk(&mut seen)?;
            seen.text()
        }
    })
}

#[derive(Default)]
struct Seen {
    depth: usize,
    /// Elements of the outermost list, and of the first list in it.
    outer: usize,
    inner: usize,
    in_first: bool,
    values: Vec<String>,
    pairs: Option<Vec<String>>,
    key: String,
}

impl Seen {
    fn text(mut self) -> String {
        match &mut self.pairs {
            Some(pairs) => {
                pairs.sort();
                format!("{{{}}}", pairs.join(","))
            }
            None => format!("{}x{}:{}", self.outer, self.inner, self.values.join(",")),
        }
    }
}

impl Visitor for Seen {
    fn begin_list(&mut self) -> Result<()> {
        self.depth += 1;
        if self.depth == 2 {
            self.outer += 1;
            self.in_first = self.outer == 1;
        } else if self.depth == 3 && self.in_first {
            self.inner += 1;
        }
        Ok(())
    }
    fn end_list(&mut self) -> Result<()> {
        self.depth -= 1;
        Ok(())
    }
    fn begin_map(&mut self) -> Result<()> {
        self.pairs = Some(Vec::new());
        Ok(())
    }
    fn end_map(&mut self) -> Result<()> {
        Ok(())
    }
    fn key(&mut self, key: &str) -> Result<()> {
        self.key = hex(key.as_bytes());
        Ok(())
    }
    fn value(&mut self, v: Value<'_>) -> Result<()> {
        let text = value(v)?;
        if let Some(pairs) = &mut self.pairs {
            pairs.push(format!("{}={text}", self.key));
            return Ok(());
        }
        match self.depth {
            1 => self.outer += 1,
            2 if self.in_first => self.inner += 1,
            _ => {}
        }
        self.values.push(text);
        Ok(())
    }
}
