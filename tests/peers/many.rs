// To be included: ten tests of one.

macro_rules! ten {
    ($($item:tt)*) => {
        mod t0 { $($item)* }
        mod t1 { $($item)* }
        mod t2 { $($item)* }
        mod t3 { $($item)* }
        mod t4 { $($item)* }
        mod t5 { $($item)* }
        mod t6 { $($item)* }
        mod t7 { $($item)* }
        mod t8 { $($item)* }
        mod t9 { $($item)* }
    };
}
