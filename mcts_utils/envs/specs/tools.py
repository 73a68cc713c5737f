"""AgentGym's tool servers: weather, movie, todo, sheet and academia. One form, five lists of commands. Pure."""

from __future__ import annotations

import re
from typing import Any

from mcts_utils.envs.specs.base import ListedSpec

FORM = (
    "{about} You reach a goal with commands that look things up or change them.\n"
    "In every turn reply with exactly two lines:\n"
    "Thought: one short sentence on what to do next and why\n"
    'Action: NAME with Action Input: {{"parameter": value}}\n'
    "The commands and their parameters are:\n"
    "{commands}\n"
    "End with finish. Write {{}} where a command has no parameters."
)
PLACE, DAYS = "latitude, longitude", "start_date, end_date"
TOOLS = {  # what it is about, what the commands are
    "weather": (
        "You answer a question about the weather.",
        "get_user_current_date, get_user_current_location, get_latitude_longitude (name), get_distance (latitude1, "
        f"longitude1, latitude2, longitude2), get_elevation ({PLACE}), get_current_temp, get_current_rain, "
        f"get_current_snow, get_current_air_quality_index (each: {PLACE}, current_date), get_historical_temp, "
        "get_historical_rain, get_historical_snow, get_historical_air_quality_index, get_temp_forecast, "
        f"get_rain_forecast, get_snow_forecast (each: {PLACE}, {DAYS}), get_air_quality_level (air_quality_index), "
        "check_valid_actions, finish (answer)",
    ),
    "movie": (
        "You answer a question about films and people.",
        "get_search_movie (movie_name), get_movie_details, get_movie_production_companies, "
        "get_movie_production_countries, get_movie_cast, get_movie_crew, get_movie_keywords, "
        "get_movie_alternative_titles, get_movie_translation (each: movie_id), get_search_person (person_name), "
        "get_person_details, get_person_cast, get_person_crew, get_person_external_ids (each: person_id), "
        "check_valid_actions, finish (answer)",
    ),
    "todo": (
        "You manage a list of projects and tasks.",
        "get_user_current_date, get_user_current_location, get_projects, update_project (project_id, is_favorite), "
        "get_tasks (project_id), get_task_description, get_task_duration, complete_task, delete_task (each: task_id), "
        "update_task (task_id, due_date), check_valid_actions, finish (answer)",
    ),
    "sheet": (
        "You edit a spreadsheet.",
        "open_sheet (name), del_sheet (name), freeze_data (dimension, num), get_A1_annotation (row, col), insert_cols "
        "(values_list, col_idx), insert_rows (values_list, row_idx), delete_batch_data (dimension, index_list), "
        "update_cell (position, value), update_cell_by_formula (start_position, end_position, position_list, "
        "result_position, operator), update_range (start_position, end_position, values_list), sort_sheet_by_col "
        "(col_num, order), merge_cells (start_position, end_position), update_note (position, content), "
        "get_all_values, get_range_values (start_position, end_position), get_cell_value (position), "
        "get_value_by_formula (start_position, end_position, position_list, operator), "
        "filter_cells (query, in_row, in_column), get_note "
        "(position), finish",
    ),
    "academia": (
        "You answer a question about papers and authors, in graphs of citations and of authors who wrote together.",
        "loadPaperNet, loadAuthorNet, neighbourCheck (graph, node), paperNodeCheck (node), authorNodeCheck (node), "
        "paperEdgeCheck (node1, node2), authorEdgeCheck (node1, node2), check_valid_actions, finish (answer)",
    ),
}


class Tool(ListedSpec):
    """The reward is the share of the goal's parts that are met. The answer to /reset is a bare text.

    An index has the same goal on every server. Weather, movie, todo and sheet ask services on the web, so they do not
    replay: `--strategy live`.
    """

    brief_prompt = "Reach the goal."
    refusal = re.compile(r"Format error|Observation: ERROR")
    look_actions = re.compile(r"check_valid_actions\b")
    goal_form = re.compile(r"accomplish the goal: (.+?)(?:\nGive me one action\.)?\Z", re.DOTALL)
    goal_sign = "'accomplish the goal: ...'"
    index_field = "id"
    create_fields = {"id": 0}

    def __init__(self, name: str) -> None:
        self.name = self.title = name
        about, commands = TOOLS[name]
        self.full_prompt = FORM.format(about=about, commands=commands)

    def sent(self, action: str) -> str:
        """Return the action with the word before it by which the server finds it."""
        return f"Action: {action}"

    def shows(self, answer: Any, seen: str) -> bool:
        # GET /observation leaves out the request for an action that ends the answer to a step.
        return seen.startswith(str(answer))


SPECS = {name: Tool(name) for name in TOOLS}
