Feature: Ports
  Scenario: One server
    When a server has port 80
    Then it has said "one"

  Scenario: Another server
    When a server has port 80
    Then it has said "one"
