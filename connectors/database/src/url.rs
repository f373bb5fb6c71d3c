//! Connection URLs: `scheme://user:password@host:port/database?parameter=value`.

use percent_encoding::percent_decode_str;
use seachange_sdk::Secret;

/// The parts of a connection URL.
#[derive(Debug, Default, PartialEq)]
pub struct Url {
    /// Account.
    pub user: Option<String>,
    /// Password.
    pub password: Option<Secret>,
    /// Host.
    pub host: Option<String>,
    /// Port.
    pub port: Option<u16>,
    /// Database.
    pub database: Option<String>,
    /// Parameters after `?`.
    pub params: Vec<(String, String)>,
}

impl Url {
    /// Parses a URL of one of these schemes. The error never quotes the URL: it may hold a password.
    pub fn parse(text: &str, schemes: &[&str]) -> Result<Url, String> {
        let rest = schemes.iter().find_map(|s| text.strip_prefix(s)?.strip_prefix("://")).ok_or_else(|| {
            let schemes: Vec<String> = schemes.iter().map(|s| format!("{s}://")).collect();
            format!("does not begin with {}", schemes.join(" or "))
        })?;
        let decode = |s: &str| {
            percent_decode_str(s)
                .decode_utf8()
                .map(|s| s.into_owned())
                .map_err(|_| "is not UTF-8 when decoded".to_owned())
        };
        let some =
            |s: &str| -> Result<Option<String>, String> { if s.is_empty() { Ok(None) } else { decode(s).map(Some) } };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, address) = authority.rsplit_once('@').unwrap_or(("", authority));
        let mut url = Url::default();
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        url.user = some(user)?;
        url.password = some(password)?.map(Secret::new);
        let (host, port) = match address.strip_prefix('[') {
            Some(v6) => {
                let (host, port) = v6.split_once(']').ok_or("has a [ without ]")?;
                (host, if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or("has text after ]")?) })
            }
            None => address.split_once(':').map_or((address, None), |(h, p)| (h, Some(p))),
        };
        if host.contains(',') || port.is_some_and(|p| p.contains(',')) {
            return Err("names more than one host: name the primary's".into());
        }
        url.host = some(host)?;
        url.port = match port {
            None | Some("") => None,
            Some(p) => Some(p.parse().map_err(|_| "has a port that is no number from 1 to 65535")?),
        };
        url.database = some(path)?;
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            let (k, v) = pair.split_once('=').ok_or("has a parameter without =")?;
            url.params.push((decode(k)?, decode(v)?));
        }
        Ok(url)
    }
    /// Does it hold a password?
    pub fn secret(&self) -> bool {
        self.password.is_some() || self.params.iter().any(|(k, _)| k == "password")
    }
}

/// A URL without its password.
pub fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return String::new() };
    let (address, query) = rest.split_once('?').map_or((rest, None), |(a, q)| (a, Some(q)));
    let (authority, path) = address.split_once('/').map_or((address, None), |(a, p)| (a, Some(p)));
    let authority = match authority.rsplit_once('@') {
        Some((login, host)) => format!("{}@{host}", login.split(':').next().unwrap_or_default()),
        None => authority.to_owned(),
    };
    let mut out = format!("{scheme}://{authority}");
    if let Some(p) = path {
        out.push('/');
        out.push_str(p);
    }
    let kept: Vec<&str> =
        query.unwrap_or_default().split('&').filter(|p| !p.is_empty() && !p.starts_with("password=")).collect();
    if !kept.is_empty() {
        out.push('?');
        out.push_str(&kept.join("&"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let schemes = ["postgres", "postgresql"];
        let u = Url::parse("postgresql://a%40b:p%3Aw%2F@[::1]:77/d%20b?sslmode=require&host=%2Ftmp", &schemes).unwrap();
        assert_eq!((u.user.as_deref(), u.password.as_ref().map(Secret::reveal)), (Some("a@b"), Some("p:w/")));
        assert_eq!((u.host.as_deref(), u.port, u.database.as_deref()), (Some("::1"), Some(77), Some("d b")));
        assert_eq!(u.params, [("sslmode".into(), "require".into()), ("host".into(), "/tmp".into())]);
        for bad in [
            "mysql://x",
            "postgres:x",
            "postgres://[::1/x",
            "postgres://h:99999/x",
            "postgres://a,b/x",
            "postgres://h/x?a",
            "postgres://%ff@h/x",
        ] {
            assert!(Url::parse(bad, &schemes).is_err(), "{bad}");
        }
        let e = Url::parse("mysql://x", &schemes).unwrap_err();
        assert_eq!(e, "does not begin with postgres:// or postgresql://");
    }
    #[test]
    fn passwords_stay_out() {
        assert_eq!(
            without_password("postgres://a:b@h:1/d?sslmode=require&password=x"),
            "postgres://a@h:1/d?sslmode=require"
        );
        assert_eq!(without_password("postgres://h/d?password=x"), "postgres://h/d");
        assert_eq!(without_password("postgres://a:p%40@h"), "postgres://a@h");
    }
}
