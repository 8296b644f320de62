"""Continuous batching: "3" is answered with 3, 2, 1 and 0, a step each; "x" whole, at once. Each piece tells the step
and with whom it was computed."""

import time


class CountsDown:
    def initialize(self, context):
        self.left = {}
        self.steps = 0
        self.pause = context.model_yaml_config.get("pause", 0.0)

    def handle(self, data, context):
        time.sleep(self.pause)
        self.steps += 1
        ids = list(context.request_ids.values())
        for name, row in zip(ids, data, strict=True):
            if name not in self.left:
                text = bytes(row["body"]).decode()
                if text == "raise":
                    raise ValueError("the handler broke")
                self.left[name] = int(text) if text.isdigit() else text
        context.stopping_criteria = [self.ended] * len(data)
        answers = []
        for index, name in enumerate(ids):
            left = self.left[name]
            context.set_response_header(index, "step", str(self.steps))
            answers.append(f"{name}:{left} of {len(data)}|")
            if not isinstance(left, int):
                del self.left[name]
            else:
                self.left[name] = left - 1
        for gone in self.left.keys() - set(ids):
            del self.left[gone]
        return answers

    def ended(self, answer):
        name, _, rest = answer.partition(":")
        left = rest.split(" ")[0]
        if left == "criteria":
            raise RuntimeError("the criteria broke")
        if not left.isdigit():
            return None
        if left == "0":
            del self.left[name]
        return left == "0"
