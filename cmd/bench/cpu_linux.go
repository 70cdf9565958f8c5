package main

import (
	"time"

	"golang.org/x/sys/unix"
)

// cpuTime is how long a process has been on the processors, to the nanosecond where /proc has hundredths of
// a second: the clock that clock_getcpuclockid(3) names.
func cpuTime(pid int) (time.Duration, error) {
	const scheduled = 2
	var t unix.Timespec
	err := unix.ClockGettime(int32(^pid<<3|scheduled), &t)
	return time.Duration(t.Nano()), err
}
