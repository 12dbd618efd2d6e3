from tests.simulation.world import X
def test_x(): assert X == 1
