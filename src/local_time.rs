//! Local time as nginx writes it.

/// Appends `YYYY-MM-DD HH:MM:SS` in the process's time zone, with `separator` between the parts of the date:
/// `-` as `ngx.localtime()` has it, `/` as the error log does.
pub fn put(out: &mut Vec<u8>, timestamp_ms: i64, separator: u8) {
    let seconds: libc::time_t = timestamp_ms.div_euclid(1000);
    // SAFETY: an all-zero tm is a valid value of that plain struct.
    let mut parts: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live values of ours; localtime_r keeps neither. It fails only for years
    // beyond its range and then leaves the zeros, which print as a date nobody takes for a real one.
    unsafe { libc::localtime_r(&seconds, &mut parts) };
    let separator = char::from(separator);
    let text = format!(
        "{:04}{separator}{:02}{separator}{:02} {:02}:{:02}:{:02}",
        i64::from(parts.tm_year) + 1900,
        parts.tm_mon + 1,
        parts.tm_mday,
        parts.tm_hour,
        parts.tm_min,
        parts.tm_sec
    );
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    #[test]
    fn has_the_shape_of_nginx_s_own_and_takes_any_number() {
        for (ms, separator) in
            [(1_700_000_000_000, b'-'), (0, b'/'), (i64::MAX, b'-'), (i64::MIN, b'/')]
        {
            let mut out = Vec::new();
            super::put(&mut out, ms, separator);
            let text = String::from_utf8(out).unwrap();
            assert_eq!(text.matches(char::from(separator)).count(), 2, "{text}");
            assert_eq!(text.matches(':').count(), 2, "{text}");
        }
    }
}
