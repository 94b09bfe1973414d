//! Paths of declared queries, and which of them a request means.

/// A declared path, `/orders/{id}`, perhaps with what else a request must ask for: `/orders/{id}?view=details`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PathPattern {
    segments: Vec<Segment>,
    fixed: Vec<(String, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    // Literal first: of two patterns that fit, the one that is literal earlier is meant.
    Literal(String),
    Parameter(String),
}

/// First segments that belong to the service itself.
const RESERVED: [&str; 7] = ["api", "docs", "freshness", "health", "metrics", "openapi.json", "problems"];

impl PathPattern {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (path, query) = text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)));
        let rest =
            path.strip_prefix('/').filter(|rest| !rest.is_empty()).ok_or("a path begins with `/` and has a name")?;
        let segments = rest.split('/').map(segment).collect::<Result<Vec<_>, _>>()?;
        let mut names: Vec<_> = segments.iter().filter_map(Segment::parameter).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("`{}` stands twice in the path", twice[0]));
        }
        match &segments[0] {
            Segment::Literal(name) if RESERVED.contains(&name.as_str()) => {
                Err(format!("`/{name}` is the service's own"))
            }
            Segment::Literal(_) => Ok(Self { segments, fixed: query.map(fixed).transpose()?.unwrap_or_default() }),
            Segment::Parameter(_) => Err("a path begins with a name, not with a parameter".into()),
        }
    }

    pub(crate) fn parameters(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(Segment::parameter)
    }

    /// What a request must ask for beside the path.
    pub(crate) fn fixed(&self) -> &[(String, String)] {
        &self.fixed
    }

    /// The path without what stands behind `?`.
    pub(crate) fn path(&self) -> String {
        let part = |segment: &Segment| match segment {
            Segment::Literal(name) => format!("/{name}"),
            Segment::Parameter(name) => format!("/{{{name}}}"),
        };
        self.segments.iter().map(part).collect()
    }

    /// Whether the two take the very same requests.
    pub(crate) fn same_requests(&self, other: &Self) -> bool {
        let same = |(a, b): (&Segment, &Segment)| match (a, b) {
            (Segment::Literal(a), Segment::Literal(b)) => a == b,
            (Segment::Parameter(_), Segment::Parameter(_)) => true,
            _ => false,
        };
        self.fixed == other.fixed
            && self.segments.len() == other.segments.len()
            && self.segments.iter().zip(&other.segments).all(same)
    }

    /// The parameters' texts, still encoded, if the path fits.
    fn fit<'a>(&'a self, segments: &[&'a str], query: &[(String, String)]) -> Option<Vec<(&'a str, &'a str)>> {
        if segments.len() != self.segments.len() || !self.fixed.iter().all(|pair| query.contains(pair)) {
            return None;
        }
        let mut values = Vec::new();
        for (pattern, given) in self.segments.iter().zip(segments) {
            match pattern {
                Segment::Literal(name) if name == given => {}
                Segment::Parameter(name) if !given.is_empty() => values.push((name.as_str(), *given)),
                _ => return None,
            }
        }
        Some(values)
    }
}

impl Segment {
    fn parameter(&self) -> Option<&str> {
        if let Self::Parameter(name) = self { Some(name) } else { None }
    }
}

/// Letters, digits and what needs no escape in a path.
fn plain(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

fn fixed(query: &str) -> Result<Vec<(String, String)>, String> {
    let pair = |text: &str| match text.split_once('=') {
        Some((name, value)) if plain(name) && plain(value) => Ok((name.to_owned(), value.to_owned())),
        _ => {
            Err(format!("`{text}` can't stand behind `?`: a name, `=`, and a value of letters, digits, `-`, `_`, `.`"))
        }
    };
    query.split('&').map(pair).collect()
}

fn segment(text: &str) -> Result<Segment, String> {
    match text.strip_prefix('{').map(|rest| rest.strip_suffix('}')) {
        Some(Some(name)) if plain(name) => Ok(Segment::Parameter(name.to_owned())),
        None if plain(text) => Ok(Segment::Literal(text.to_owned())),
        _ => Err(format!("`{text}` can't stand in a path: letters, digits, `-`, `_`, `.`, or a name in braces")),
    }
}

/// Patterns with what they lead to.
#[derive(Clone, Debug)]
pub(crate) struct Routes<T>(Vec<(PathPattern, T)>);

/// What a path leads to.
pub(crate) struct Match<'a, T> {
    pub(crate) pattern: &'a PathPattern,
    pub(crate) target: &'a T,
    /// The path's parameters by name, decoded.
    pub(crate) parameters: Vec<(String, String)>,
}

impl<T> Routes<T> {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a route, or gives back what already takes the very same requests.
    pub(crate) fn add(&mut self, pattern: PathPattern, target: T) -> Result<(), &T> {
        // By position, as a reference that is kept in one arm would keep the list borrowed in the other.
        if let Some(at) = self.0.iter().position(|(known, _)| known.same_requests(&pattern)) {
            return Err(&self.0[at].1);
        }
        // What asks for more comes first.
        let order = |p: &PathPattern| (p.segments.clone(), usize::MAX - p.fixed.len());
        let at = self.0.partition_point(|(known, _)| order(known) <= order(&pattern));
        self.0.insert(at, (pattern, target));
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (&PathPattern, &T)> {
        self.0.iter().map(|(pattern, target)| (pattern, target))
    }

    /// Finds the route for a request's path, also under `/api`. `None`: no such path; `Err`: a segment that isn't text.
    pub(crate) fn find<'a>(
        &'a self,
        path: &'a str,
        query: &[(String, String)],
    ) -> Option<Result<Match<'a, T>, &'a str>> {
        let path = path.strip_prefix("/api").filter(|rest| rest.starts_with('/')).unwrap_or(path);
        let segments: Vec<_> = path.strip_prefix('/')?.split('/').collect();
        let (pattern, target, values) =
            self.0.iter().find_map(|(pattern, target)| Some((pattern, target, pattern.fit(&segments, query)?)))?;
        let decoded = values.into_iter().map(|(name, value)| Ok((name.to_owned(), decode(value).ok_or(name)?)));
        Some(decoded.collect::<Result<_, _>>().map(|parameters| Match { pattern, target, parameters }))
    }
}

/// Percent-decoding of one path segment; `None` if the result isn't UTF-8 or an escape is cut.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let digits = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok())?;
            bytes.push(u8::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn routes(paths: &[&'static str]) -> Routes<&'static str> {
        let mut routes = Routes::new();
        for path in paths {
            routes.add(PathPattern::parse(path).unwrap(), *path).unwrap();
        }
        routes
    }

    fn find(routes: &Routes<&'static str>, path: &str) -> Option<(String, Vec<String>)> {
        let found = routes.find(path, &[])?.map_err(str::to_owned).unwrap();
        Some(((*found.target).to_owned(), found.parameters.into_iter().map(|(_, v)| v).collect()))
    }

    #[test]
    fn literal_beats_parameter_whatever_the_order() {
        for paths in [
            ["/orders/{id}", "/orders/search", "/orders/{id}/lines"],
            ["/orders/{id}/lines", "/orders/search", "/orders/{id}"],
        ] {
            let routes = routes(&paths);
            assert_eq!(find(&routes, "/orders/search"), Some(("/orders/search".into(), vec![])));
            assert_eq!(find(&routes, "/orders/7"), Some(("/orders/{id}".into(), vec!["7".into()])));
            assert_eq!(find(&routes, "/api/orders/7/lines"), Some(("/orders/{id}/lines".into(), vec!["7".into()])));
            for missing in ["/orders", "/orders/", "/orders/7/", "/api", "/", "", "/apiorders/7", "/orders//lines"] {
                assert_eq!(find(&routes, missing), None, "{missing}");
            }
        }
    }

    #[test]
    fn what_stands_behind_the_question_mark_must_be_asked_for() {
        for paths in [["/a/{x}", "/a/{x}?view=all"], ["/a/{x}?view=all", "/a/{x}"]] {
            let routes = routes(&paths);
            let asked = |query: &[(&str, &str)]| {
                let query: Vec<_> = query.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
                *routes.find("/a/1", &query).unwrap().map_err(str::to_owned).unwrap().target
            };
            assert_eq!(asked(&[]), "/a/{x}");
            assert_eq!(asked(&[("view", "other")]), "/a/{x}");
            assert_eq!(asked(&[("q", "1"), ("view", "all")]), "/a/{x}?view=all");
        }
        assert!(PathPattern::parse("/a?view").is_err());
    }

    #[test]
    fn segments_are_decoded_once() {
        let routes = routes(&["/a/{x}"]);
        assert_eq!(find(&routes, "/a/%C3%A4%2F%2525"), Some(("/a/{x}".into(), vec!["ä/%25".into()])));
        assert!(routes.find("/a/%FF", &[]).unwrap().is_err());
        assert!(routes.find("/a/%4", &[]).unwrap().is_err());
    }

    #[test]
    fn patterns_that_can_not_be_told_apart_or_are_reserved_are_refused() {
        let mut all = routes(&["/a/{x}"]);
        assert_eq!(all.add(PathPattern::parse("/a/{y}").unwrap(), "other"), Err(&"/a/{x}"));
        for bad in
            ["orders", "/", "/{id}", "/health/x", "/api/orders", "/a/{x}/{x}", "/a/{x", "/a b", "/a//b", "/a/x{y}"]
        {
            assert!(PathPattern::parse(bad).is_err(), "{bad}");
        }
    }
}
