//! Manual pages as a terminal shows them, for the tests: the few requests of man(7) that our pages are made of.
//!
//! A page with anything else in it is an error: whoever writes it learns that here, and not from a reader.

/// How far text stands from the margin, and how far a tag's text from the tag, in columns; as man(7).
const INDENT: usize = 7;

/// The columns of a page.
const WIDTH: usize = 100;

struct Page {
    out: String,
    /// What is gathered for the next paragraph.
    words: Vec<String>,
    /// The tag that the next paragraph hangs on.
    tag: Option<String>,
    /// How far it is moved in, and how much farther it hangs there.
    left: usize,
    hang: usize,
    outer: Vec<(usize, usize)>,
    fill: bool,
    /// The next line is a tag.
    tagging: bool,
}

/// Renders a page.
pub(super) fn render(source: &str) -> Result<String, String> {
    let mut page = Page {
        out: String::new(),
        words: Vec::new(),
        tag: None,
        left: INDENT,
        hang: 0,
        outer: Vec::new(),
        fill: true,
        tagging: false,
    };
    for (number, line) in source.lines().enumerate() {
        page.line(line).map_err(|why| format!("line {}: {why}: {line}", number + 1))?;
    }
    page.end();
    if page.outer.is_empty() && page.fill { Ok(page.out) } else { Err("an .RS or .nf has no end".to_owned()) }
}

impl Page {
    fn line(&mut self, line: &str) -> Result<(), String> {
        let Some(request) = line.strip_prefix('.') else {
            self.text(plain(line)?);
            return Ok(());
        };
        let (name, rest) = request.split_once(' ').unwrap_or((request, ""));
        if matches!(name, "\\\"" | "ie" | "el") {
            return Ok(());
        }
        let mut words = Vec::new();
        for word in arguments(rest)? {
            words.push(plain(&word)?);
        }
        match name {
            "B" | "I" => self.text(words.join(" ")),
            "BR" | "IR" | "BI" | "RB" | "RI" | "IB" => self.text(words.concat()),
            "TH" => {
                let [name, section, ..] = &words[..] else {
                    return Err("expected name and section".to_owned());
                };
                self.out.push_str(&format!("{name}({section})\n"));
            }
            "SH" | "SS" => {
                self.end();
                (self.left, self.hang) = (INDENT, 0);
                let indent = if name == "SH" { 0 } else { 3 };
                self.out.push_str(&format!("\n{:indent$}{}\n", "", words.join(" ")));
            }
            "PP" => {
                self.end();
                self.hang = 0;
                self.out.push('\n');
            }
            "br" => self.end(),
            "TP" => {
                self.end();
                (self.tagging, self.hang) = (true, INDENT);
            }
            "IP" => {
                self.end();
                self.hang = INDENT;
                self.tag = Some(words.first().cloned().unwrap_or_default());
            }
            "RS" => {
                self.end();
                self.outer.push((self.left, self.hang));
                self.hang = 0;
                self.left += words.first().and_then(|word| word.parse().ok()).unwrap_or(INDENT);
            }
            "RE" => {
                self.end();
                (self.left, self.hang) = self.outer.pop().ok_or("no .RS before it")?;
            }
            "nf" | "fi" => {
                self.end();
                self.fill = name == "fi";
            }
            other => return Err(format!("the request .{other} is not known here")),
        }
        Ok(())
    }

    fn text(&mut self, text: String) {
        if std::mem::take(&mut self.tagging) {
            self.tag = Some(text);
        } else if self.fill {
            self.words.extend(text.split_whitespace().map(str::to_owned));
        } else {
            let left = self.left + self.hang;
            self.out.push_str(format!("{:left$}{text}", "").trim_end());
            self.out.push('\n');
        }
    }

    /// Writes the paragraph that was gathered.
    fn end(&mut self) {
        if let Some(tag) = self.tag.take() {
            self.out.push_str(&format!("{:1$}{tag}\n", "", self.left));
        }
        let left = self.left + self.hang;
        let mut line = String::new();
        for word in std::mem::take(&mut self.words) {
            if !line.is_empty() && left + line.chars().count() + 1 + word.chars().count() > WIDTH {
                self.out.push_str(&format!("{:left$}{line}\n", ""));
                line.clear();
            }
            line.push_str(if line.is_empty() { "" } else { " " });
            line.push_str(&word);
        }
        if !line.is_empty() {
            self.out.push_str(&format!("{:left$}{line}\n", ""));
        }
    }
}

/// Takes away what says how text looks, and puts characters in place of their names.
fn plain(text: &str) -> Result<String, String> {
    let (mut out, mut chars) = (String::new(), text.chars());
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('-') => out.push('-'),
            Some('e') => out.push('\\'),
            Some(' ') => out.push(' '),
            Some('&') => {}
            Some('f') if matches!(chars.next(), Some('B' | 'I' | 'R' | 'P')) => {}
            // The apostrophe's string has the mark that begins its name.
            Some(of @ ('(' | '*')) => {
                let name: String = chars.by_ref().skip(usize::from(of == '*')).take(2).collect();
                out.push(match name.as_str() {
                    "aq" | "Aq" => '\'',
                    "dq" => '"',
                    "bu" => '•',
                    other => return Err(format!("the character {other} is not known here")),
                });
            }
            other => {
                return Err(format!("\\{} is not known here", other.map(String::from).unwrap_or_default()));
            }
        }
    }
    Ok(out)
}

/// Splits the words of a request, of which some are quoted.
fn arguments(text: &str) -> Result<Vec<String>, String> {
    let (mut words, mut rest) = (Vec::new(), text.trim());
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').ok_or("a quote has no end")?,
            // An escaped blank is part of its word.
            None => {
                let blank = rest.char_indices().find(|(at, c)| *c == ' ' && !rest[..*at].ends_with('\\'));
                rest.split_at(blank.map_or(rest.len(), |(at, _)| at))
            }
        };
        words.push(word.to_owned());
        rest = after.trim_start();
    }
    Ok(words)
}
