"""Sets a response header, a content type or a reason to what the request says: {"name": ..., "value": ...}."""


def handle(data, context):
    if data is None:
        return None
    for index, row in enumerate(data):
        wish = row["body"]
        if wish["name"] == "(content type)":
            context.set_response_content_type(index, wish["value"])
        elif wish["name"] == "(reason)":
            context.set_response_status(code=299, phrase=wish["value"], idx=index)
        else:
            context.set_response_header(index, wish["name"], wish["value"])
    return ["body"] * len(data)
