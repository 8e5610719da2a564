"""Slicer's markups-schema-v1.0.3, as far as point lists go, and stricter: what it leaves to chance is asked for.

It does not know the status 'missing', which Slicer itself reads and writes.
"""

from __future__ import annotations

NUMBERS = {"type": "array", "items": {"type": "number"}}
TEXT, FLAG = {"type": "string"}, {"type": "boolean"}
CONTROL_POINT = {
    "type": "object",
    "properties": {
        **dict.fromkeys(("id", "label", "description", "associatedNodeID"), TEXT),
        "position": {**NUMBERS, "minItems": 3, "maxItems": 3},
        "orientation": {**NUMBERS, "minItems": 9, "maxItems": 9},
        **dict.fromkeys(("selected", "locked", "visibility"), FLAG),
        "positionStatus": {"enum": ["undefined", "preview", "defined"]},
    },
    "required": ["id", "label", "orientation", "selected", "locked", "visibility", "positionStatus"],
    "additionalProperties": False,
    "if": {"properties": {"positionStatus": {"const": "defined"}}},
    "then": {"required": ["position"]},
    "else": {"not": {"required": ["position"]}},
}
MARKUPS = {
    "type": "object",
    "properties": {
        "@schema": {"type": "string", "pattern": r"markups-schema-v1\.0\.3\.json#$"},
        "markups": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "properties": {
                    "type": {"enum": ["Fiducial", "Line", "Angle", "Curve", "ClosedCurve", "Plane", "ROI"]},
                    "coordinateSystem": {"enum": ["LPS", "RAS"]},
                    "coordinateUnits": {"enum": ["mm", "um"]},
                    **dict.fromkeys(("locked", "fixedNumberOfControlPoints"), FLAG),
                    "labelFormat": TEXT,
                    "lastUsedControlPointNumber": {"type": "integer"},
                    "controlPoints": {"type": "array", "items": CONTROL_POINT},
                    "measurements": {"type": "array"},
                },
                "required": ["type", "coordinateSystem", "coordinateUnits", "labelFormat", "controlPoints"],
                "additionalProperties": False,
            },
        },
    },
    "required": ["@schema", "markups"],
    "additionalProperties": False,
}
