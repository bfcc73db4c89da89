package azure

import "time"

// Askings is how often a question is put whose answer is in doubt.
const Askings = askings

// Doubts returns the table of what is asked about again: answer, reason, source.
func Doubts() (rows [][3]string) {
	for _, d := range doubts() {
		rows = append(rows, [3]string{d.answer, d.why, d.source})
	}
	return rows
}

// Pause is how long to wait before asking for the n-th time again, with time left.
func Pause(n int, left time.Duration) time.Duration { return pause(n, left) }
