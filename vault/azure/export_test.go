package azure

// Askings is how often a question is put whose answer is in doubt.
const Askings = askings

// Doubts returns the table of what is asked about again: answer, reason, source.
func Doubts() (rows [][3]string) {
	for _, d := range doubts() {
		rows = append(rows, [3]string{d.answer, d.why, d.source})
	}
	return rows
}
