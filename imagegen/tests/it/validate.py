"""Has other people's programs judge what lies beside an image: validate.py CYCLONEDX SPDX.

Prints what is wrong and fails, or says what was looked at.
"""

import json
import sys

from cyclonedx.model.bom import Bom
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document


def check_cyclonedx(path):
    with open(path, encoding="utf-8") as file:
        text = file.read()
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if error is not None:
        return [f"{path}: {error}"]
    document = json.loads(text)
    bom = Bom.from_json(document)
    # Refuses references to components that are not there.
    bom.validate()
    purls = [component["purl"] for component in document["components"]]
    changed = [purl for purl in purls if PackageURL.from_string(purl).to_string() != purl]
    print(f"{path}: {len(bom.components)} components")
    return [f"{path}: not as purls are written: {purl}" for purl in changed]


def check_spdx(path):
    document = parse_file(path)
    messages = validate_full_spdx_document(document)
    print(f"{path}: {len(document.packages)} packages, {len(document.relationships)} relationships")
    return [f"{path}: {message.validation_message}" for message in messages]


def main():
    cyclonedx, spdx = sys.argv[1:]
    faults = check_cyclonedx(cyclonedx) + check_spdx(spdx)
    print("\n".join(faults), file=sys.stderr)
    return 1 if faults else 0


sys.exit(main())
