package agent_test

import "objectmount/objects"

const childEnv = "OBJECTMOUNT_TEST_AGENT"

func child() int { return 0 }

func createRequest(name string) objects.CreateRequest {
	return objects.CreateRequest{Name: name, ContentType: objects.DetectContentType(name)}
}
