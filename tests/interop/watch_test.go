package interop

import (
	"sync"
	"testing"
	"time"

	v2 "loggregator/interop/gen/v2"
	"loggregator/interop/internal/clients"
	"loggregator/interop/internal/sequence"
)

// watcher emits numbered logs of one source and looks at what each of several readers gets of them.
type watcher struct {
	source  string
	readers map[string]*sequence.Tracker
	lock    sync.Mutex
	emitted int
	stop    chan struct{}
	done    chan struct{}
}

func watch(t *testing.T, source string) *watcher {
	t.Helper()
	return &watcher{source: source, readers: map[string]*sequence.Tracker{}}
}

// v2 reads what comes and waits for nothing; primed counts from what is emitted later.
func (w *watcher) v2(name string, batches <-chan []*v2.Envelope) {
	tracker := sequence.Track(w.source)
	w.readers[name] = tracker
	go func() {
		for batch := range batches {
			for _, envelope := range batch {
				tracker.V2(envelope)
			}
		}
	}()
}

func (w *watcher) v1(name string, stream *clients.Stream) {
	tracker := sequence.Track(w.source)
	w.readers[name] = tracker
	go func() {
		for envelope := range stream.Envelopes {
			tracker.V1(envelope)
		}
	}()
}

// emit makes every reader see the first number, and then goes on until stopped, some hundreds a second.
func (w *watcher) emit(emitter *clients.Emitter) {
	w.stop, w.done = make(chan struct{}), make(chan struct{})
	stop, done := w.stop, w.done
	go func() {
		defer close(done)
		ticker := time.NewTicker(2 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				w.lock.Lock()
				w.emitted++
				n := w.emitted
				w.lock.Unlock()
				emitter.Emit(sequence.Log(w.source, n))
			case <-stop:
				emitter.Flush()
				return
			}
		}
	}()
}

// pause stops emitting when everything emitted was given to the stream.
func (w *watcher) pause() {
	close(w.stop)
	<-w.done
}

func (w *watcher) count() int {
	w.lock.Lock()
	defer w.lock.Unlock()
	return w.emitted
}

// caughtUp waits until every reader has what is emitted from now on.
func (w *watcher) caughtUp(t *testing.T, what string) {
	t.Helper()
	from := w.count()
	for name, tracker := range w.readers {
		eventually(t, name+" reads "+what, func() bool { return tracker.Last() > from })
	}
}

// finish stops emitting and waits until every reader has the last number.
func (w *watcher) finish(t *testing.T) {
	t.Helper()
	w.pause()
	last := w.count()
	for name, tracker := range w.readers {
		eventually(t, name+" has the last", func() bool { return tracker.Last() == last })
	}
}

// complete fails unless the reader got, from its first number on, every one once and in order.
func (w *watcher) complete(t *testing.T, name string) {
	t.Helper()
	tracker := w.readers[name]
	w.orderly(t, name)
	if gaps := tracker.Gaps(tracker.First(), w.count()); len(gaps) != 0 {
		t.Errorf("%s lacks %v of %d; it was told of %d", name, gaps, w.count(), tracker.Noticed())
	}
}

// orderly fails if the reader got one twice or out of order.
func (w *watcher) orderly(t *testing.T, name string) {
	t.Helper()
	tracker := w.readers[name]
	if twice := tracker.Duplicates(); len(twice) != 0 {
		t.Errorf("%s got %v twice", name, twice)
	}
	if reordered := tracker.Reordered(); len(reordered) != 0 {
		t.Errorf("%s got %v out of order", name, reordered)
	}
}
