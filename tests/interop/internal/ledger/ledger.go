// Package ledger reads a component's own account of what it delivered and lost, from its admin port.
package ledger

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"time"
)

// Report is what a component says.
type Report struct {
	Component string `json:"component"`
	Ingress   struct {
		Received uint64 `json:"received"`
		Accepted uint64 `json:"accepted"`
	} `json:"ingress"`
	Subscriptions []Subscription `json:"subscriptions"`
}

// Subscription is one reader of the component, or one that was.
type Subscription struct {
	ID        string            `json:"id"`
	Peer      string            `json:"peer"`
	Selector  string            `json:"selector"`
	API       string            `json:"api"`
	Open      bool              `json:"open"`
	Received  uint64            `json:"received"`
	Delivered uint64            `json:"delivered"`
	Dropped   map[string]uint64 `json:"dropped"`
	Pending   uint64            `json:"pending"`
}

// Lost is everything that was dropped for the subscription.
func (s Subscription) Lost() uint64 {
	var sum uint64
	for _, count := range s.Dropped {
		sum += count
	}
	return sum
}

// Balanced tells whether nothing is unaccounted for.
func (s Subscription) Balanced() bool { return s.Received == s.Delivered+s.Lost()+s.Pending }

// Read asks the admin port at this address.
func Read(addr string) (Report, error) {
	var report Report
	client := http.Client{Timeout: 10 * time.Second}
	response, err := client.Get("http://" + addr + "/ledger")
	if err != nil {
		return report, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return report, fmt.Errorf("the ledger of %s: %s", addr, response.Status)
	}
	return report, json.NewDecoder(response.Body).Decode(&report)
}

var (
	lastSums = regexp.MustCompile(`final account of (\S+) \S+: received (\d+), accepted (\d+), `)
	lastRow  = regexp.MustCompile(`final account of \S+ \S+, subscription "([^"]*)": ` +
		`received (\d+), delivered (\d+), dropped (\d+), pending (\d+)`)
)

// Last is what a component that has stopped wrote about itself at the very end: sums, and the rows of its named
// subscriptions.
func Last(stderr string) (Report, error) {
	var report Report
	sums := lastSums.FindAllStringSubmatch(stderr, -1)
	if len(sums) != 1 {
		return report, fmt.Errorf("%d final accounts in\n%s", len(sums), stderr)
	}
	report.Component = sums[0][1]
	numbers, err := parse(sums[0][2:])
	if err != nil {
		return report, err
	}
	report.Ingress.Received, report.Ingress.Accepted = numbers[0], numbers[1]
	for _, row := range lastRow.FindAllStringSubmatch(stderr, -1) {
		numbers, err := parse(row[2:])
		if err != nil {
			return report, err
		}
		report.Subscriptions = append(report.Subscriptions, Subscription{
			ID: row[1], Received: numbers[0], Delivered: numbers[1],
			Dropped: map[string]uint64{"any": numbers[2]}, Pending: numbers[3],
		})
	}
	return report, nil
}

func parse(digits []string) (numbers []uint64, err error) {
	for _, text := range digits {
		number, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return nil, err
		}
		numbers = append(numbers, number)
	}
	return numbers, nil
}
