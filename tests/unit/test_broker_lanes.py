"""Who sends much, or what costs much, keeps nobody else waiting."""

from broker.core.intake.lanes import Lanes


def serve(lanes: Lanes[str], count: int, cost_s: float = 1.0) -> list[str]:
    served = []
    for _ in range(count):
        what = lanes.take()
        assert what is not None
        served.append(what)
        lanes.charge(cost_s)
    return served


def fill(lanes: Lanes[str], who: str, count: int) -> None:
    for _ in range(count):
        lanes.put(who, who, 10)


def test_lanes_are_served_in_turn() -> None:
    lanes: Lanes[str] = Lanes()
    fill(lanes, "flood", 100)
    fill(lanes, "a", 2)
    assert sorted(serve(lanes, 5)) == ["a", "a", "flood", "flood", "flood"]
    assert lanes.waiting("a") == (0, 0)
    assert lanes.waiting("flood") == (97, 970)
    assert len(lanes) == 1


def test_each_lane_is_in_order() -> None:
    lanes: Lanes[str] = Lanes()
    for what in "123":
        lanes.put("a", what, 1)
    assert serve(lanes, 3) == ["1", "2", "3"]
    assert lanes.take() is None
    assert len(lanes) == 0


def test_who_comes_later_has_saved_nothing_up() -> None:
    lanes: Lanes[str] = Lanes()
    fill(lanes, "a", 100)
    serve(lanes, 50)
    fill(lanes, "b", 100)
    served = serve(lanes, 20)
    assert 9 <= served.count("b") <= 11


def test_what_costs_more_comes_less_often() -> None:
    lanes: Lanes[str] = Lanes()
    spent = {"dear": 0.0, "cheap": 0.0}
    fill(lanes, "dear", 100)
    fill(lanes, "cheap", 1000)
    for _ in range(200):
        who = lanes.take()
        assert who is not None
        cost_s = 1.0 if who == "dear" else 0.1
        spent[who] += cost_s
        lanes.charge(cost_s)
    assert abs(spent["dear"] - spent["cheap"]) < 1.5


def test_one_dear_thing_at_a_time_is_no_way_around() -> None:
    lanes: Lanes[str] = Lanes()
    fill(lanes, "cheap", 1000)
    dear = 0
    for _ in range(300):
        if lanes.waiting("dear") == (0, 0):
            lanes.put("dear", "dear", 0)
        who = lanes.take()
        dear += who == "dear"
        lanes.charge(1.0 if who == "dear" else 0.1)
    assert dear < 40


def test_who_comes_and_goes_beside_a_long_lane_is_forgotten() -> None:
    lanes: Lanes[str] = Lanes()
    fill(lanes, "long", 5000)
    for number in range(1000):
        lanes.put(str(number), "x", 0)
        serve(lanes, 2, 0.001)
    assert len(vars(lanes)["_costs"]) < 200


def test_what_came_last_may_be_replaced() -> None:
    lanes: Lanes[str] = Lanes()
    assert lanes.newest("a") is None
    lanes.put("a", "1", 10)
    lanes.put("a", "2", 20)
    lanes.replace_newest("a", "3", 25)
    assert lanes.newest("a") == "3"
    assert lanes.waiting("a") == (2, 35)
    lanes.put("b", "4", 5)
    assert lanes.bytes == 40
    assert sorted(serve(lanes, 3)) == ["1", "3", "4"]
    assert lanes.bytes == 0


def test_nothing_is_kept_of_those_who_are_gone() -> None:
    lanes: Lanes[str] = Lanes()
    for number in range(1000):
        lanes.put(str(number), "x", 0)
        assert lanes.take() == "x"
        lanes.charge(0.001)
    assert len(vars(lanes)["_costs"]) < 200
