//! Cache lines ahead of time.

/// Asks the processor to bring every cache line of a value into its cache. A hint: nothing is read, and nothing waits.
#[inline(always)]
#[allow(unsafe_code)]
pub fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        const LINE: usize = 64;
        let start = core::ptr::from_ref(value).cast::<i8>();
        let mut offset = 0;
        while offset < size_of::<T>().max(1) {
            // SAFETY: a prefetch is a hint that reads nothing and faults on no address; the address is inside `value`.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(offset)) };
            offset += LINE;
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_hint_changes_nothing() {
        let values = [[7_u64; 40]; 3];
        values.iter().for_each(super::prefetch);
        super::prefetch(&());
        assert_eq!(values, [[7; 40]; 3]);
    }
}
