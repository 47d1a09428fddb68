"""A Franka Panda arm with table, cube and bins, as a MuJoCo model of capsules and boxes.

Kinematics, limits and hand are those that Franka publishes (Robot and interface specifications of the Franka Control
Interface: Denavit-Hartenberg parameters in Craig's convention, joint, velocity and torque limits; franka_description:
the hand). Link masses were identified by Gaz et al., Dynamic Identification of the Franka Emika Panda Robot, RA-L 2019.
Link inertias are those of the capsules drawn here. Only the pairs of geoms named below collide: MJX pays for each.
"""

from typing import NamedTuple

import mujoco
import numpy as np

WHITE, GREY, DARK = (0.93, 0.94, 0.96, 1), (0.62, 0.65, 0.70, 1), (0.17, 0.18, 0.21, 1)
WOOD, FLOOR, GREEN = (0.78, 0.68, 0.56, 1), (0.36, 0.40, 0.46, 1), (0.13, 0.62, 0.38, 1)
INVISIBLE = (0, 0, 0, 0)

TIMESTEP = 0.0125  # seconds
FLANGE = 0.107  # metres from joint 7 along its axis
HAND_YAW = -np.pi / 4  # of the hand on the flange
FINGERS = FLANGE + 0.0584  # metres from joint 7 to the root of the fingers
FINGER_LENGTH = 0.045  # metres from their root to the point that grasps
GRASP_POINT = (0.0, 0.0, FINGERS + FINGER_LENGTH)  # in the frame of link 7
FINGER_TRAVEL = 0.04  # metres, each finger
FINGER_STIFFNESS = 500.0  # newtons per metre
FINGER_FORCE = FINGER_STIFFNESS * FINGER_TRAVEL  # newtons, the most it closes with
PAD = 0.008  # metres, radius of the capsule that touches
CUBE = 0.03  # metres, half of an edge
WALL = 0.05  # metres, height of the bins


class Link(NamedTuple):
    """A link, its frame at its joint (Craig's convention), and how it looks."""

    a: float  # metres along x of the frame before
    alpha: float  # radians around it
    d: float  # metres along the joint axis
    limits: tuple[float, float]  # radians
    speed: float  # radians per second at most
    torque: float  # newton metres at most
    stiffness: float  # newton metres per radian: with the damping below settles in about 0.3 s
    mass: float  # kilograms
    shapes: tuple  # capsules (end, end, radius) in metres, the first one carries the mass


QUARTER = np.pi / 2
ARM = (
    Link(0, 0, 0.333, (-2.8973, 2.8973), 2.175, 87, 800, 4.970684, (((0, 0, -0.2), (0, 0, -0.02), 0.06),)),
    Link(
        *(0, -QUARTER, 0, (-1.7628, 1.7628), 2.175, 87, 600, 0.646926),
        (((0, 0, -0.06), (0, 0, 0.06), 0.062), ((0, 0, 0), (0, -0.14, 0), 0.058)),
    ),
    Link(
        *(0, QUARTER, 0.316, (-2.8973, 2.8973), 2.175, 87, 800, 3.228604),
        (((0, 0, -0.15), (0, 0, -0.08), 0.06), ((0, 0, -0.08), (0.0825, 0, 0), 0.052)),
    ),
    Link(
        *(0.0825, QUARTER, 0, (-3.0718, -0.0698), 2.175, 87, 800, 3.587895),
        (((0, 0, -0.05), (0, 0, 0.05), 0.056), ((0, 0, 0), (-0.0825, 0.1, 0), 0.052)),
    ),
    Link(-0.0825, -QUARTER, 0.384, (-2.8973, 2.8973), 2.61, 12, 100, 1.225946, (((0, 0, -0.26), (0, 0, -0.03), 0.05),)),
    Link(
        *(0, QUARTER, 0, (-0.0175, 3.7525), 2.61, 12, 100, 1.666555),
        (((0, 0, -0.045), (0, 0, 0.045), 0.05), ((0, 0, 0), (0.088, 0, 0), 0.045)),
    ),
    Link(0.088, QUARTER, 0, (-2.8973, 2.8973), 2.61, 12, 100, 0.735522, (((0, 0, 0), (0, 0, 0.075), 0.044),)),
)


def turn(axis: str, angle: float) -> list[float]:
    """Quaternion of a rotation around a coordinate axis."""
    return [np.cos(angle / 2), *(np.sin(angle / 2) * (other == axis) for other in "xyz")]


def capsule(body, start, end, radius, rgba, name="", mass=0.0):
    body.add_geom(
        name=name,
        type=mujoco.mjtGeom.mjGEOM_CAPSULE,
        fromto=[*start, *end],
        size=[radius, 0, 0],
        rgba=rgba,
        mass=mass,
        contype=0,
        conaffinity=0,
    )


def box(body, centre, half, rgba, name="", mass=0.0):
    body.add_geom(
        name=name,
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=centre,
        size=half,
        rgba=rgba,
        mass=mass,
        contype=0,
        conaffinity=0,
    )


def collide(spec, friction: float, *pairs: tuple[str, str]) -> None:
    """Lets pairs of geoms touch, with Coulomb friction where it is not 0."""
    for one, other in pairs:
        spec.add_pair(
            geomname1=one, geomname2=other, condim=3 if friction else 1, friction=[friction, friction, 0, 0, 0]
        )


def servo(spec, joint: str, stiffness: float, force: float) -> None:
    """Position control of a joint, without damping: the joint has it."""
    actuator = spec.add_actuator(name=joint, target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT)
    actuator.set_to_position(kp=stiffness)
    actuator.forcelimited, actuator.forcerange = True, [-force, force]


def panda(gripper: bool) -> mujoco.MjSpec:
    """The arm on its table, hand down when its joints are (0, q2, 0, q4, 0, q2 - q4, pi / 4).

    Joint positions, and the controls that are their targets, are in order: seven angles, then (with gripper) the two
    fingers, 0 closed and FINGER_TRAVEL open. Without gripper the fingers are closed for good.
    """
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    option = spec.option
    option.timestep = TIMESTEP
    option.iterations, option.ls_iterations = 4, 4
    world = spec.worldbody
    world.add_light(pos=[0, 0, 4], dir=[0.3, 0.2, -1], type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL)
    plane = {"type": mujoco.mjtGeom.mjGEOM_PLANE, "size": [3, 3, 0.1], "contype": 0, "conaffinity": 0}
    world.add_geom(name="floor", pos=[0, 0, -0.6], rgba=FLOOR, **plane)
    world.add_geom(name="table", rgba=INVISIBLE, **plane)  # so that nothing falls off the one that is drawn
    box(world, (0.45, 0, -0.03), (0.75, 0.9, 0.03), WOOD)
    box(world, (-0.02, 0, 0.012), (0.12, 0.1, 0.012), DARK)
    capsule(world, (0, 0, 0.04), (0, 0, 0.1), 0.075, WHITE, "base")

    body = world
    for number, link in enumerate(ARM, 1):
        body = body.add_body(
            name=f"link{number}",
            pos=[link.a, -link.d * np.sin(link.alpha), link.d * np.cos(link.alpha)],
            quat=turn("x", link.alpha),
            gravcomp=1,  # as the controller of the real arm
        )
        body.add_joint(
            name=f"joint{number}",
            range=link.limits,
            limited=True,  # pressed on the table, the weak joints of the wrist would give way past theirs
            armature=0.1,
            damping=link.torque / link.speed,  # at full torque it then reaches its greatest speed
        )
        servo(spec, f"joint{number}", link.stiffness, link.torque)
        for part, (start, end, radius) in enumerate(link.shapes):
            rgba, mass = (GREY if len(link.shapes) > 1 else WHITE, link.mass) if part == 0 else (WHITE, 0)
            capsule(body, start, end, radius, rgba, f"link{number}.{part}", mass)

    across = np.array([-np.sin(HAND_YAW), np.cos(HAND_YAW), 0])  # the axis along which the fingers open
    palm = np.array([0, 0, FLANGE + 0.035])
    capsule(body, palm - 0.07 * across, palm + 0.07 * across, 0.032, DARK, "hand", 0.73)
    middle, half = (0, PAD, 0.026), (0.01, PAD, 0.026)
    if gripper:
        for name, yaw in (("left", HAND_YAW), ("right", HAND_YAW + np.pi)):
            finger = body.add_body(name=name, pos=[0, 0, FINGERS], quat=turn("z", yaw), gravcomp=1)
            joint = {"name": name, "type": mujoco.mjtJoint.mjJNT_SLIDE, "axis": [0, 1, 0]}
            finger.add_joint(**joint, range=[0, FINGER_TRAVEL], limited=True, armature=0.1, damping=10)
            servo(spec, name, FINGER_STIFFNESS, FINGER_FORCE)
            box(finger, middle, half, GREY, mass=0.015)
            capsule(finger, (0, PAD, 0.02), (0, PAD, FINGER_LENGTH), PAD, INVISIBLE, name)
    else:
        box(body, (0, 0, FINGERS + 0.026), (0.012, 0.012, 0.026), GREY)
        capsule(body, (0, 0, FINGERS), (0, 0, FINGERS + FINGER_LENGTH), PAD, INVISIBLE, "left")
    arm = ("hand", "link6.1", "left", "right") if gripper else ("hand", "link6.1", "left")
    collide(spec, 0, *(("table", part) for part in arm), ("base", "hand"))
    return spec


def add_cube(spec: mujoco.MjSpec) -> None:
    cube = spec.worldbody.add_body(name="cube", pos=[0.5, 0, CUBE])
    cube.add_freejoint()
    box(cube, (0, 0, 0), (CUBE, CUBE, CUBE), GREEN, "cube", 0.1)
    collide(spec, 1, ("cube", "left"), ("cube", "right"))
    collide(spec, 0.6, ("cube", "table"))
    collide(spec, 0, ("cube", "hand"))


def add_bins(spec: mujoco.MjSpec) -> None:
    """Two bins side by side, divided along the x axis. The rounded rims of their walls are what collides."""
    low, high, edge = 0.36, 0.64, 0.29
    for side, rgba in ((-1, GREY), (1, DARK)):
        box(spec.worldbody, (0.5, side * edge / 2, 0.001), ((high - low) / 2, edge / 2, 0.001), rgba)
    ends = {"near": ((low, -edge), (low, edge)), "far": ((high, -edge), (high, edge))}
    ends |= {f"side{y:+}": ((low, y), (high, y)) for y in (-edge, 0, edge)}
    for name, ((x1, y1), (x2, y2)) in ends.items():
        centre, half = ((x1 + x2) / 2, (y1 + y2) / 2), ((x2 - x1) / 2 + PAD, (y2 - y1) / 2 + PAD)
        box(spec.worldbody, (*centre, (WALL - PAD) / 2), (*half, (WALL - PAD) / 2), GREY)
        capsule(spec.worldbody, (x1, y1, WALL - PAD), (x2, y2, WALL - PAD), PAD, WHITE, name)
        collide(spec, 0, *((name, other) for other in ("cube", "left", "right", "hand")))
