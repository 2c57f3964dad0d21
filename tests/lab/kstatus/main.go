// Reads a JSON list of objects and prints a JSON list of what kstatus calls each of them.
package main

import (
	"encoding/json"
	"log"
	"os"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

func main() {
	var objects []json.RawMessage
	if err := json.NewDecoder(os.Stdin).Decode(&objects); err != nil {
		log.Fatal(err)
	}
	said := []string{}
	for _, each := range objects {
		object := &unstructured.Unstructured{}
		// Its own decoder, as a client has it: generations become int64.
		if err := object.UnmarshalJSON(each); err != nil {
			log.Fatal(err)
		}
		result, err := status.Compute(object)
		if err != nil {
			log.Fatal(err)
		}
		said = append(said, result.Status.String())
	}
	if err := json.NewEncoder(os.Stdout).Encode(said); err != nil {
		log.Fatal(err)
	}
}
