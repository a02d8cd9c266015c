package main

import (
	"log"
	"slices"
	"time"

	"loggregator/interop/internal/clients"
	"loggregator/interop/internal/sequence"
)

// reader is one client, with a tracker for each emitter.
type reader struct {
	name     string
	trackers []*sequence.Tracker
}

func newReader(name string, emitters []*emitter) *reader {
	r := &reader{name: name}
	for _, emitter := range emitters {
		r.trackers = append(r.trackers, sequence.Track(emitter.source))
	}
	return r
}

func (r *reader) v1(stream *clients.Stream) {
	go r.errors(stream.Errors)
	for envelope := range stream.Envelopes {
		for _, tracker := range r.trackers {
			tracker.V1(envelope)
		}
	}
}

func (r *reader) v2(stream *clients.GatewayStream) {
	go r.errors(stream.Errors)
	for batch := range stream.Batches {
		for _, envelope := range batch {
			for _, tracker := range r.trackers {
				tracker.V2(envelope)
			}
		}
	}
}

func (r *reader) errors(errors <-chan error) {
	for err := range errors {
		log.Printf("%s: %v", r.name, err)
	}
}

// how long a reader may take to come back to a router that was restarted, in numbers of its emitter.
func comeBack() int { return int((10 * time.Second).Seconds()) * *rate / 2 }

// explain looks at every gap of one reader at one emitter; false when one has no explanation.
func explain(number int, emitter *emitter, r *reader, all []*reader) bool {
	tracker := r.trackers[number]
	var inDoubt, notYet, unexplained int
	var strange []sequence.Gap
	for _, gap := range tracker.Gaps(1, emitter.count()) {
		for ; gap.First <= gap.Last && emitter.doubted(gap.First) && missedByAll(number, gap.First, all); gap.First++ {
			inDoubt++
		}
		// What is left of a gap that is over when the next stream began is the time before this reader came back.
		if gap.First <= gap.Last && emitter.starts(gap.First) && gap.Len() <= comeBack() {
			notYet += gap.Len()
		} else if gap.First <= gap.Last {
			unexplained += gap.Len()
			strange = append(strange, gap)
		}
	}
	duplicates, reordered := tracker.Duplicates(), tracker.Reordered()
	log.Printf("%s of %s: %d sent, last %d, %d in doubt, %d not yet read, %d noticed, %d else %v, %d twice, %d out of order",
		r.name, emitter.source, emitter.count(), tracker.Last(), inDoubt, notYet, tracker.Noticed(), unexplained, strange,
		len(duplicates), len(reordered))
	return unexplained <= tracker.Noticed() && len(duplicates) == 0 && len(reordered) == 0
}

// missedByAll tells whether no reader got this number.
func missedByAll(number, missing int, all []*reader) bool {
	return !slices.ContainsFunc(all, func(r *reader) bool {
		return len(r.trackers[number].Gaps(missing, missing)) == 0
	})
}
