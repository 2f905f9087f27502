# Validates scenarios of ACRN by its schema: reads [{"schema", "scenario"}] as JSON from stdin, and prints for each a list
# of what is wrong. Needs the packages lxml, xmlschema 1.9 and elementpath 2.5, as ACRN's own validator does.
import json, sys
import lxml.etree as etree
import xmlschema

schemas = {}


def schema(path):
    if path not in schemas:
        tree = etree.parse(path)
        # The schema is put together from several files.
        tree.xinclude()
        schemas[path] = xmlschema.XMLSchema11(etree.tostring(tree).decode(), base_url=path.rsplit("/", 1)[0])
    return schemas[path]


def faults(job):
    return [f"{error.path}: {error.reason}" for error in schema(job["schema"]).iter_errors(job["scenario"])]


json.dump([faults(job) for job in json.load(sys.stdin)], sys.stdout)
