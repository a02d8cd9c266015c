// Package sequence finds what a reader did not get: emitters number their logs, trackers look for gaps.
package sequence

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"loggregator/interop/gen/events"
	v2 "loggregator/interop/gen/v2"
)

// Log is the log number n of a source, counted from 1.
func Log(source string, n int) *v2.Envelope {
	return &v2.Envelope{
		Timestamp: time.Now().UnixNano(),
		SourceId:  source,
		Message:   &v2.Envelope_Log{Log: &v2.Log{Payload: []byte("number " + strconv.Itoa(n))}},
	}
}

// Tracker watches what one reader gets of one source.
type Tracker struct {
	source     string
	lock       sync.Mutex
	seen       map[int]bool
	first      int
	last       int
	duplicates []int
	reordered  []int
	noticed    int
}

// Track makes a tracker for the logs of a source.
func Track(source string) *Tracker { return &Tracker{source: source, seen: map[int]bool{}} }

// V1 takes note of a v1 envelope.
func (t *Tracker) V1(envelope *events.Envelope) {
	if counter := envelope.GetCounterEvent(); counter.GetName() == "TruncatingBuffer.DroppedMessages" {
		t.notice(int(counter.GetDelta()))
	}
	if log := envelope.GetLogMessage(); log.GetAppId() == t.source {
		t.log(string(log.GetMessage()))
	}
}

// V2 takes note of a v2 envelope.
func (t *Tracker) V2(envelope *v2.Envelope) {
	if counter := envelope.GetCounter(); counter.GetName() == "dropped" {
		t.notice(int(counter.GetDelta()))
	}
	if log := envelope.GetLog(); log != nil && envelope.SourceId == t.source {
		t.log(string(log.Payload))
	}
}

func (t *Tracker) notice(count int) {
	t.lock.Lock()
	defer t.lock.Unlock()
	t.noticed += count
}

func (t *Tracker) log(payload string) {
	digits, isNumbered := strings.CutPrefix(payload, "number ")
	n, err := strconv.Atoi(digits)
	if !isNumbered || err != nil {
		return
	}
	t.lock.Lock()
	defer t.lock.Unlock()
	if t.seen[n] {
		t.duplicates = append(t.duplicates, n)
	} else if n < t.last {
		t.reordered = append(t.reordered, n)
	}
	if len(t.seen) == 0 {
		t.first = n
	}
	t.seen[n] = true
	t.last = max(t.last, n)
}

// Last is the highest number so far.
func (t *Tracker) Last() int {
	t.lock.Lock()
	defer t.lock.Unlock()
	return t.last
}

// First is the number that came first; 0: none came.
func (t *Tracker) First() int {
	t.lock.Lock()
	defer t.lock.Unlock()
	return t.first
}

// Noticed is how many losses the reader was told of, in its stream.
func (t *Tracker) Noticed() int {
	t.lock.Lock()
	defer t.lock.Unlock()
	return t.noticed
}

// Duplicates are numbers that came more than once.
func (t *Tracker) Duplicates() []int {
	t.lock.Lock()
	defer t.lock.Unlock()
	return append([]int(nil), t.duplicates...)
}

// Reordered are numbers that came after a higher one.
func (t *Tracker) Reordered() []int {
	t.lock.Lock()
	defer t.lock.Unlock()
	return append([]int(nil), t.reordered...)
}

// Gap is a run of numbers that never came, both ends included.
type Gap struct{ First, Last int }

// Len is how many are missing.
func (g Gap) Len() int { return g.Last - g.First + 1 }

func (g Gap) String() string { return fmt.Sprintf("%d-%d", g.First, g.Last) }

// Gaps lists what is missing of the numbers from first to last.
func (t *Tracker) Gaps(first, last int) []Gap {
	t.lock.Lock()
	defer t.lock.Unlock()
	var gaps []Gap
	for n := first; n <= last; n++ {
		if t.seen[n] {
			continue
		}
		if end := len(gaps) - 1; end >= 0 && gaps[end].Last == n-1 {
			gaps[end].Last = n
		} else {
			gaps = append(gaps, Gap{n, n})
		}
	}
	return gaps
}
