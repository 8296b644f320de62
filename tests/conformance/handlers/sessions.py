"""Adds up the numbers of each sequence. "stop" ends the sequence, odd numbers are answered in three pieces."""

import os


class Sessions:
    def initialize(self, context):
        self.sums = {}
        self.left = {}  # request -> pieces to come

    def handle(self, data, context):
        answers, criteria = [], []
        for index, row in enumerate(data):
            sequence, request = context.get_sequence_id(index), context.get_request_id(index)
            context.set_response_header(index, context.header_key_sequence_id, sequence)
            context.set_response_header(index, "worker", str(os.getpid()))
            if request not in self.left:
                started = context.get_request_header(index, context.header_key_sequence_start) == "true"
                context.set_response_header(index, "started", str(started))
                text = bytes(row["body"]).decode()
                if text == "stop":
                    context.set_response_header(index, context.header_key_sequence_end, sequence)
                else:
                    self.sums[sequence] = self.sums.get(sequence, 0) + int(text)
                self.left[request] = 2 if text.isdigit() and int(text) % 2 else None
            answers.append(f"{self.sums[sequence]} ")
            criteria.append(lambda answer, request=request: self.ended(request))
        context.stopping_criteria = criteria
        return answers

    def ended(self, request):
        left = self.left[request]
        if not left:
            del self.left[request]
            return None if left is None else True
        self.left[request] = left - 1
        return False
