//! Tables for people.

/// Columns under their heads, each as wide as what is in it.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// With these heads.
    pub fn new<const N: usize>(heads: [&str; N]) -> Self {
        Self {
            rows: vec![heads.iter().map(|h| (*h).to_owned()).collect()],
        }
    }

    /// Adds a row; an empty cell is shown as `-`.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        let dash = |c: String| if c.is_empty() { "-".to_owned() } else { c };
        self.rows.push(cells.into_iter().map(dash).collect());
    }

    /// The table as text; of what is on further pages it says how many.
    pub fn of(self, total: u64) -> String {
        let shown = self.rows.len() as u64 - 1;
        let mut text = self.to_string();
        if total > shown {
            text.push_str(&format!(
                "\n{shown} of {total}; --page-size shows more, --filter fewer"
            ));
        }
        text
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |n: usize| self.rows.iter().map(|r| r[n].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for (at, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&format!("{cell:<width$}  "));
            }
            let end = if at == 0 { "" } else { "\n" };
            write!(f, "{end}{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Bytes, in the unit that people would take.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 10.0);
    format!("{value:.digits$} {}", UNITS[unit])
}

/// Milliseconds, as people would say them.
pub fn millis(n: u64) -> String {
    match n {
        0..1000 => format!("{n} ms"),
        1000..120_000 => format!("{:.1} s", n as f64 / 1000.0),
        _ => format!("{} min {} s", n / 60_000, n / 1000 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_their_heads() {
        let mut table = Table::new(["NAME", "STATE"]);
        table.row(["a-longer-name".into(), "RUNNING".into()]);
        table.row(["b".into(), String::new()]);
        let text = "NAME           STATE\na-longer-name  RUNNING\nb              -";
        assert_eq!(table.to_string(), text);
    }

    #[test]
    fn numbers_have_the_unit_that_people_would_take() {
        let all = [0, 1023, 1024, 10 << 20, 3 << 30, u64::MAX].map(bytes);
        assert_eq!(
            all,
            ["0 B", "1023 B", "1.0 KiB", "10 MiB", "3.0 GiB", "16777216 TiB"]
        );
        assert_eq!([5, 6100, 130_000].map(millis), ["5 ms", "6.1 s", "2 min 10 s"]);
    }
}
