package main

import (
	"log"
	"slices"

	"loggregator/interop/internal/clients"
	"loggregator/interop/internal/sequence"
)

// reader is one client, with a tracker for each emitter.
type reader struct {
	name string
	// id is its subscription's.
	id       string
	trackers []*sequence.Tracker
}

func newReader(name, id string, emitters []*emitter) *reader {
	r := &reader{name: name, id: id}
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

// got is how many of one router's numbers came.
func (r *reader) got(number, sent int) int {
	missing := 0
	for _, gap := range r.trackers[number].Gaps(1, sent) {
		missing += gap.Len()
	}
	return sent - missing
}

// missedByAll counts the numbers that no reader got.
func missedByAll(number, sent int, all []*reader) (missed int) {
	for _, gap := range all[0].trackers[number].Gaps(1, sent) {
		for n := gap.First; n <= gap.Last; n++ {
			if !slices.ContainsFunc(all[1:], func(r *reader) bool { return len(r.trackers[number].Gaps(n, n)) == 0 }) {
				missed++
			}
		}
	}
	return missed
}

// explain compares what came of one router's logs with the router's own account of all its lives; false when a number is
// not where the account has it.
func explain(number int, emitter *emitter, account *account, all []*reader) bool {
	sent, accepted := emitter.count(), int(account.accepted)
	missed := missedByAll(number, sent, all)
	log.Printf("%s: %d sent, %d accepted in %d lives, %d seen by no reader", emitter.source, sent, accepted, account.lives, missed)
	explained := sent-accepted == missed
	for _, r := range all {
		row := account.rows[r.id]
		got, tracker := r.got(number, sent), r.trackers[number]
		duplicates, reordered := tracker.Duplicates(), tracker.Reordered()
		log.Printf("  %s: got %d; of %d accepted the router had %d for it (it was not back yet for %d), delivered %d, dropped %d, kept %d to its end; "+
			"it was told of %d; %d twice, %d out of order; missing %v", r.name, got, accepted, row.Received, accepted-int(row.Received),
			row.Delivered, row.Lost(), row.Pending, tracker.Noticed(), len(duplicates), len(reordered), tracker.Gaps(1, sent))
		explained = explained && row.Balanced() && got == int(row.Delivered) &&
			tracker.Noticed() <= int(row.Lost()) && len(duplicates) == 0 && len(reordered) == 0
	}
	return explained
}
