//! `top` on a terminal: draws the board, and does what keys say.

use std::{io, thread, time::Duration};

use ratatui::{
    DefaultTerminal, Frame,
    crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
    layout::{Alignment, Constraint, Layout},
    style::{Modifier, Style},
    text::Line,
    widgets::{Cell, Row, Table, TableState},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::{
    Heard,
    board::{Board, Key, Snapshot, View, is_text},
};
use crate::text;

/// How long the thread that reads keys waits for one before it looks whether it is still wanted.
const KEY_WITHIN: Duration = Duration::from_millis(200);

/// Keys that wait to be acted on.
const KEYS: usize = 16;

/// What the screen shows.
struct Screen {
    view: View,
    /// The filter is being typed.
    typing: bool,
    table: TableState,
}

/// What a key means.
#[derive(Debug, PartialEq, Eq)]
enum Then {
    Draw,
    End,
}

/// Shows the board until the user has seen enough.
pub(super) async fn run(
    mut board: Board,
    mut heard: mpsc::Receiver<Heard>,
    view: View,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut terminal = Restored(ratatui::try_init()?);
    let mut keys = read_keys();
    let mut screen = Screen { view, typing: false, table: TableState::default() };
    loop {
        let snapshot = board.snapshot(&screen.view);
        terminal.0.draw(|frame| screen.draw(frame, &snapshot, &board))?;
        tokio::select! {
            event = keys.recv() => match event {
                Some(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                    if screen.press(key) == Then::End {
                        return Ok(());
                    }
                }
                // Another size is drawn anew like anything else.
                Some(_) => {}
                None => return Ok(()),
            },
            Some(heard) = heard.recv() => match heard {
                Heard::Reading(usage) => _ = board.take(*usage),
                Heard::Lost(machine, why) => board.lose(machine, why),
            },
            _ = terminate.recv() => return Ok(()),
            _ = hang_up.recv() => return Ok(()),
        }
    }
}

/// The terminal, which is as it was before when this is gone.
struct Restored(DefaultTerminal);

impl Drop for Restored {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Reads what is typed, in a thread: waiting for a key is waiting for ever.
fn read_keys() -> mpsc::Receiver<Event> {
    let (sender, keys) = mpsc::channel(KEYS);
    thread::spawn(move || {
        let read = || -> io::Result<Option<Event>> {
            if event::poll(KEY_WITHIN)? { event::read().map(Some) } else { Ok(None) }
        };
        while !sender.is_closed() {
            match read() {
                Ok(None) => {}
                Ok(Some(event)) => {
                    if sender.blocking_send(event).is_err() {
                        return;
                    }
                }
                // The terminal has gone.
                Err(_) => return,
            }
        }
    });
    keys
}

impl Screen {
    fn press(&mut self, key: KeyEvent) -> Then {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Then::End;
        }
        if self.typing {
            match key.code {
                KeyCode::Char(c) => self.view.filter.push(c),
                KeyCode::Backspace => _ = self.view.filter.pop(),
                KeyCode::Enter => self.typing = false,
                KeyCode::Esc => {
                    self.typing = false;
                    self.view.filter.clear();
                }
                _ => {}
            }
            return Then::Draw;
        }
        match key.code {
            KeyCode::Char('q') => return Then::End,
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Esc => self.view.filter.clear(),
            KeyCode::Char('v') => self.view.machines = !self.view.machines,
            KeyCode::Char('c') => self.view.sort = Key::Cpu,
            KeyCode::Char('m') => self.view.sort = Key::Memory,
            KeyCode::Char('t') => self.view.sort = Key::Tasks,
            KeyCode::Char('i') => self.view.sort = Key::Disk,
            KeyCode::Char('n') => self.view.sort = Key::Name,
            KeyCode::Char('h') => self.view.sort = Key::Machine,
            KeyCode::Down | KeyCode::Char('j') => self.table.scroll_down_by(1),
            KeyCode::Up | KeyCode::Char('k') => self.table.scroll_up_by(1),
            KeyCode::PageDown => self.table.scroll_down_by(10),
            KeyCode::PageUp => self.table.scroll_up_by(10),
            KeyCode::Home => self.table.select_first(),
            KeyCode::End => self.table.select_last(),
            _ => {}
        }
        Then::Draw
    }

    fn draw(&mut self, frame: &mut Frame<'_>, snapshot: &Snapshot, board: &Board) {
        let [top, middle, bottom] =
            Layout::vertical([Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)])
                .areas(frame.area());
        frame.render_widget(Line::from(self.title(snapshot, board)), top);
        let (head, rows) = snapshot.cells(&self.view);
        let view = &self.view;
        let cells = |row: Vec<String>| {
            Row::new(row.into_iter().enumerate().map(|(at, cell)| {
                let side = if is_text(at, view) { Alignment::Left } else { Alignment::Right };
                Cell::from(Line::from(cell).alignment(side))
            }))
        };
        let widths: Vec<Constraint> = (0..head.len())
            .map(|at| {
                let longest = rows.iter().map(|row| row[at].chars().count()).chain([head[at].len()]).max();
                let longest = u16::try_from(longest.unwrap_or(0)).unwrap_or(u16::MAX);
                if at == 0 { Constraint::Fill(1) } else { Constraint::Length(longest.max(7)) }
            })
            .collect();
        let header = cells(head.iter().map(|&head| head.to_owned()).collect());
        let table = Table::new(rows.into_iter().map(cells), widths)
            .header(header.style(Style::new().add_modifier(Modifier::REVERSED)))
            .column_spacing(2)
            .row_highlight_style(Style::new().add_modifier(Modifier::BOLD));
        frame.render_stateful_widget(table, middle, &mut self.table);
        frame.render_widget(Line::from(self.foot()), bottom);
    }

    fn title(&self, snapshot: &Snapshot, board: &Board) -> String {
        let mut title =
            format!("flotctl top: {} units, {} machines", snapshot.units.len(), snapshot.machines.len());
        let lost: Vec<String> =
            board.lost().map(|(host, why)| format!("{host}: {}", text::one_line(why))).collect();
        if !lost.is_empty() {
            title.push_str(&format!("; no word of {}", lost.join("; ")));
        }
        title
    }

    fn foot(&self) -> String {
        if self.typing {
            return format!("filter: {}_", self.view.filter);
        }
        let filter = match self.view.filter.as_str() {
            "" => String::new(),
            filter => format!("  [filter: {filter}, Esc clears]"),
        };
        format!("q end  c m t i n h sort  / filter  v machines or units{filter}")
    }
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;

    fn screen() -> Screen {
        Screen { view: View::default(), typing: false, table: TableState::default() }
    }

    fn press(screen: &mut Screen, keys: &str) {
        for key in keys.chars() {
            let code = match key {
                '\n' => KeyCode::Enter,
                '\x1b' => KeyCode::Esc,
                '\x08' => KeyCode::Backspace,
                key => KeyCode::Char(key),
            };
            assert_eq!(screen.press(KeyEvent::from(code)), Then::Draw);
        }
    }

    #[test]
    fn keys_sort_filter_turn_and_end() {
        let mut screen = screen();
        press(&mut screen, "mv");
        assert!(screen.view.machines && screen.view.sort == Key::Memory);
        press(&mut screen, "/qcx\x08\nn");
        assert_eq!((screen.view.filter.as_str(), screen.view.sort), ("qc", Key::Name));
        press(&mut screen, "\x1b");
        assert_eq!(screen.view.filter, "");
        press(&mut screen, "/abc\x1b");
        assert!(!screen.typing && screen.view.filter.is_empty());
        assert_eq!(screen.press(KeyEvent::from(KeyCode::Char('q'))), Then::End);
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        screen.typing = true;
        assert_eq!(screen.press(interrupt), Then::End);
    }

    #[test]
    fn it_is_drawn_on_any_size() {
        let mut screen = screen();
        let (board, view) = (Board::default(), View::default());
        for (width, height) in [(100, 5), (20, 3), (1, 1)] {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
            let snapshot = board.snapshot(&view);
            terminal.draw(|frame| screen.draw(frame, &snapshot, &board)).expect("drawn");
            let text: String =
                terminal.backend().buffer().content().iter().map(|cell| cell.symbol()).collect();
            assert!(
                width < 100 || (text.contains("0 units") && text.contains("CPU%") && text.contains("q end"))
            );
        }
    }
}
